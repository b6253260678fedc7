"""The FastAPI application: features and predictions by feature service; what is answered is in the log before."""

from skewguard.service.app import create_app
from skewguard.service.asks import parse_ask
from skewguard.service.settings import Settings, start

__all__ = ["Settings", "create_app", "parse_ask", "start"]
