"""What may be spent (Budget) and what was spent (Ledger); the price of a pass is in ``budget.flops``, which needs torch."""

from apportion.budget.budget import Budget, Unit
from apportion.budget.ledger import ACCOUNTS, Account, Ledger, Spent

__all__ = ["ACCOUNTS", "Account", "Budget", "Ledger", "Spent", "Unit"]
