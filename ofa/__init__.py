"""OFA: one encoder-decoder, one vocabulary, every task a sentence in and a sentence out.

The folders ``models/``, ``data/``, ``criterions/`` and ``tasks/`` of a checkout are imported as
``ofa.models``, ``ofa.data``, ... (``setup.py`` maps them for installed copies). With
``fairseq --user-dir <path of this folder>`` importing the package registers the plugin.
"""

import sys
from pathlib import Path

__version__ = "0.1.0"


def __getattr__(name: str):
    """``from ofa import OFA``: the Python API, imported when it is asked for; ``import ofa``
    stays light."""
    if name == "OFA":
        from ofa.inference.predictor import OFA

        return OFA
    raise AttributeError(f"module 'ofa' has no attribute '{name}'")


def register_fairseq_plugin() -> None:
    """Register tasks, architectures, criterions and the scheduler with fairseq, and mend
    fairseq."""
    from ofa import fairseq_plugin

    fairseq_plugin.register()


class _Folders(list):
    """The package's folders. fairseq asks whether ``--user-dir`` is among them when the package had
    been imported before fairseq was, and imports nothing then: the last moment to register.
    """

    def __contains__(self, folder: object) -> bool:
        found = super().__contains__(folder)
        if found and "fairseq.utils" in sys.modules:
            register_fairseq_plugin()
        return found


__path__ = _Folders(__path__)
_root = Path(__file__).resolve().parent.parent
if (_root / "setup.py").is_file():
    __path__.append(str(_root))

# ``fairseq_cli.* --user-dir ofa`` imports this package after fairseq itself; plain users of the
# network or of the commands do not pay for importing fairseq.
if "fairseq" in sys.modules:
    register_fairseq_plugin()
