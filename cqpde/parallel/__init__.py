"""One run on many processes (MPI): the state is cut into slabs along one axis.

``slabs`` cuts fields and moves them, ``composition`` applies the parts of the split route each on a cut that it does not move along, ``fixed_steps`` and
``control`` take equal and controlled steps, ``finite_volumes`` is the other route, ``frames`` records, ``solve`` drives, ``cost`` says beforehand what it takes.
"""
