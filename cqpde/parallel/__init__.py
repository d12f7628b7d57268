"""One run on many processes (MPI): the state is cut into slabs along one axis, and redistributed where a part moves along that axis."""
