"""Groups of tests that stay in one process of the tests: what they need is made once, and costs while it lives."""

import pytest

NODE = pytest.mark.xdist_group("node")  # the real node
CLUSTER = pytest.mark.xdist_group("cluster")  # a control plane for operators, charts, commands
STORES = pytest.mark.xdist_group("stores")  # a control plane for stores alone, which empty its namespaces
