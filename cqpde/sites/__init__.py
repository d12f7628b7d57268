"""Many sites without coupling between them: the full distribution as a short sum of products of one-site cell fields."""

from .kets import KetSum, ghz, product_ket, w_state
from .product_sum import ProductSum
from .solve import solve_sites

__all__ = ["KetSum", "ProductSum", "ghz", "product_ket", "solve_sites", "w_state"]
