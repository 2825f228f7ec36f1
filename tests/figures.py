"""Read what a process tells Prometheus, as tests compare it."""

from __future__ import annotations

import urllib.request

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families


def figures(text: str) -> dict[str, float]:
    """``name label-values`` → value, but for buckets and times of creation."""
    return {
        " ".join((sample.name, *filter(None, sample.labels.values()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "le" not in sample.labels and not sample.name.endswith("_created")
    }


def told(registry: CollectorRegistry) -> dict[str, float]:
    """The figures of a registry, as a scrape has them."""
    return figures(generate_latest(registry).decode())


def page(port: int) -> str:
    """What is told behind a port of this machine."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def scraped(port: int) -> dict[str, float]:
    """The figures of it."""
    return figures(page(port))
