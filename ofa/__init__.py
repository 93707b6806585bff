"""OFA: one encoder-decoder, one vocabulary, every task a sentence in and a sentence out.

The folders ``models/``, ``data/``, ``criterions/`` and ``tasks/`` of a checkout are imported as
``ofa.models``, ``ofa.data``, ... (``setup.py`` maps them for installed copies). With
``fairseq --user-dir <path of this folder>`` importing the package registers the plugin.
"""

import sys
from pathlib import Path

__version__ = "0.1.0"

_root = Path(__file__).resolve().parent.parent
if (_root / "setup.py").is_file() and str(_root) not in __path__:
    __path__.append(str(_root))


def register_fairseq_plugin() -> None:
    """Register tasks, architectures, criterions and the scheduler with fairseq, and mend fairseq."""
    from ofa import fairseq_plugin

    fairseq_plugin.register()


# ``fairseq_cli.* --user-dir ofa`` imports this package after fairseq itself; plain users of the
# network or of the commands do not pay for importing fairseq.
if "fairseq" in sys.modules:
    register_fairseq_plugin()
