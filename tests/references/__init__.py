"""Independent reference solvers: none of them shares code or a discretisation with the package under test.

All solve the equation (sums over repeated indices, ``s^+`` the pseudo-inverse of ``s``)::

    d_t rho = - d_i(v_i rho) + 1/2 d_i d_j (s_ij rho) - i[H, rho] - d_i(A_i rho + rho A_i^+)
              + s^+_ij (A_i rho A_j^+ - {A_j^+ A_i, rho}/2) + sum_g (N_g rho N_g^+ - {N_g^+ N_g, rho}/2)

for a Hermitian ``d x d`` matrix ``rho(z, t)``. Arrays put the matrix indices first: ``(d, d, *cells)``.

=================  ======================================================================================
``spectral``       periodic Fourier pseudo-spectral solver, any dimension, any smooth (time-dependent) coefficients
``characteristic`` exact for coefficients independent of z: one matrix exponential per wave vector
``flux_form``      one dimension with reflecting or absorbing walls: central differences of the matrix flux
``gaussian``       exact for Gaussian starts and models diagonal in one basis; further closed forms
``images``         closed forms on the half-line z > 0 with a wall at 0
``grid``           cell centres and a Gaussian density on them
=================  ======================================================================================
"""
