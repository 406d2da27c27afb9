"""For all tests: a busy machine is no failure."""

import hypothesis

hypothesis.settings.register_profile("guard", deadline=None)
hypothesis.settings.load_profile("guard")
