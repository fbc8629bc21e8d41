"""Load me: ``mitmdump -s acme_addon.py``."""

import sys
from pathlib import Path

_storage = Path(__file__).resolve().parent.parent / "storage"
if (_storage / "acme_storage").is_dir():  # a checkout that is not installed
    sys.path.append(str(_storage))

from mitmproxy_acme.mitm.addon import AcmeAddon

addons = [AcmeAddon()]
