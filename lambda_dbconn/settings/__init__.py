"""What a manager is configured with: `Settings`, read from variables, a URL or a secret, and the endpoint's kind.

Everything above the base modules may import it; it imports errors and values only.
"""

from lambda_dbconn.settings.model import Settings, environment

__all__ = ["Settings", "environment"]
