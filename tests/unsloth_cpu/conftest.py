"""Import Unsloth before all other libraries, as it requires; here it uses the CPU."""

import unsloth  # noqa: F401
