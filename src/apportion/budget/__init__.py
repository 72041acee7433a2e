"""What may be spent (Budget) and what was spent (Ledger).

The price of a pass is in ``apportion.models.flops``, which needs torch and is not imported here.
"""

from apportion.budget.budget import Budget, Unit
from apportion.budget.inference import InferenceBudget, KvLimit
from apportion.budget.ledger import ACCOUNTS, Account, Ledger, Spent
from apportion.budget.prices import Cost, Prices, Work
from apportion.budget.served import Meter, Served, charge, means
from apportion.budget.thinking import ThinkingBudget

__all__ = [
    "ACCOUNTS",
    "Account",
    "Budget",
    "Cost",
    "InferenceBudget",
    "KvLimit",
    "Ledger",
    "Meter",
    "Prices",
    "Served",
    "Spent",
    "ThinkingBudget",
    "Unit",
    "Work",
    "charge",
    "means",
]
