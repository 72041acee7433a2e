"""What may be spent (Budget) and what was spent (Ledger).

The price of a pass is in ``apportion.models.flops``, which needs torch and is not imported here.
"""

from apportion.budget.budget import Budget, Unit
from apportion.budget.ledger import ACCOUNTS, Account, Ledger, Spent
from apportion.budget.prices import Cost, Prices, Work

__all__ = ["ACCOUNTS", "Account", "Budget", "Cost", "Ledger", "Prices", "Spent", "Unit", "Work"]
