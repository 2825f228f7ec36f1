"""Groups of tests that stay in one process of the tests: what they need is made once, and costs while it lives."""

import pytest

NODE = pytest.mark.xdist_group("node")  # the real node
OPERATORS = pytest.mark.xdist_group("operators")  # a control plane for operators, commands and what they use
API_SERVER = pytest.mark.xdist_group("API server")  # another one: for charts, and stores that empty its namespaces
