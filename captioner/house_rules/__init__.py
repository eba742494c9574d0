"""House rules: what every caption keeps, whoever wrote it."""

from captioner.house_rules.rules import HouseRules

__all__ = ["HouseRules"]
