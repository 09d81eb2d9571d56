"""What a filter means, in plain Python: the reference for every index."""

import operator

ORDER = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}


def holds(condition, value):
    """Whether a value that a field has meets a condition."""
    if condition.operator in ("in", "not_in"):
        held = value if isinstance(value, list) else [value]
        found = any(same(one, wanted) for one in held for wanted in condition.values)
        return found == (condition.operator == "in")
    wanted = condition.values[0]
    if not is_ordered(value) or not is_ordered(wanted):
        return False
    if isinstance(value, str) != isinstance(wanted, str):
        return False  # a number and a text have no order
    return ORDER[condition.operator](value, wanted)


def is_ordered(value):
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def same(held, wanted):
    return held == wanted and isinstance(held, bool) == isinstance(wanted, bool)
