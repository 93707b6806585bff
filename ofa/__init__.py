"""OFA: one encoder-decoder, one vocabulary, every task a sentence in and a sentence out.

The folders ``models/``, ``data/``, ``criterions/`` and ``tasks/`` of a checkout are imported as
``ofa.models``, ``ofa.data``, ...; a wheel has them below this one. There are three ways to register
the plugin with fairseq, and a second registration changes nothing::

    fairseq-train --user-dir ofa      fairseq imports this package, whose last lines register
    import ofa, then fairseq with     fairseq imports nothing again, it only asks
      --user-dir ofa                    ``user_dir in ofa.__path__``: ``_PackagePath`` registers
    ofa.register_fairseq_plugin()     programs without --user-dir
"""

import sys
from pathlib import Path

__version__ = "0.1.0"


def __getattr__(name: str):
    """``from ofa import OFA, train``: the Python API, imported when it is asked for; ``import ofa``
    stays light."""
    if name == "OFA":
        from ofa.inference.api import OFA

        return OFA
    if name == "train":
        from ofa.inference.training import train

        return train
    raise AttributeError(f"module 'ofa' has no attribute '{name}'")


def register_fairseq_plugin() -> None:
    """Register tasks, architectures, criterions and the scheduler with fairseq, and repair it."""
    from ofa import fairseq_plugin

    fairseq_plugin.register()


class _PackagePath(list):
    """``ofa.__path__``, the folders of the package. Asking whether a folder is among them, as
    ``fairseq.utils.import_user_module`` does, registers the plugin."""

    def __contains__(self, folder: object) -> bool:
        found = super().__contains__(folder)
        if found and "fairseq.utils" in sys.modules:
            register_fairseq_plugin()
        return found


__path__ = _PackagePath(__path__)
_folder = Path(__file__).resolve().parent.parent
CHECKOUT = _folder if (_folder / "setup.py").is_file() else None  # None: installed from a wheel
if CHECKOUT is not None:
    __path__.append(str(CHECKOUT))

if "fairseq" in sys.modules:  # the network and the commands alone do not need fairseq
    register_fairseq_plugin()
