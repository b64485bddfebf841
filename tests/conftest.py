"""What every test shares: how hypothesis searches, on a machine that may be slow."""

import os

from hypothesis import HealthCheck, settings

# A loaded machine is no finding. In CI the search is the same every time; elsewhere it goes on looking.
settings.register_profile(
    "interlock",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),
)
settings.load_profile("interlock")
