# MuJoCo's bindings are compiled and ship no stubs: every name in them is unknown to the checker.
from typing import Any

def __getattr__(name: str) -> Any: ...
