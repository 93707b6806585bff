"""The flags of ``fairseq-train`` as fairseq and this plugin declare them, for the table that is
read where importing them would take seconds (``ofa.trainer.flags``)::

    python -m ofa.trainer.fairseq_flags     writes the table again
"""

import argparse

from fairseq import options
from fairseq.dataclass.utils import gen_parser_from_dataclass
from fairseq.models import ARCH_MODEL_REGISTRY
from fairseq.registry import REGISTRIES
from fairseq.tasks import TASK_REGISTRY

import ofa
from ofa.models.config import PRESETS
from ofa.tasks import OTHERS, declared_specs
from ofa.trainer.flags import TABLE


def declared_flags() -> list[str]:
    """Every flag that a training of one of our tasks may have, whatever it chooses, in order."""
    ofa.register_fairseq_plugin()
    tasks = [TASK_REGISTRY[name] for name in (*(spec.name for spec in declared_specs()), *OTHERS)]
    architectures = [ARCH_MODEL_REGISTRY[name] for name in PRESETS]
    choices = [one for known in REGISTRIES.values() for one in known["registry"].values()]
    found = set(options.get_training_parser()._option_string_actions)
    for choice in (*tasks, *architectures, *choices):
        parser = argparse.ArgumentParser(add_help=False)
        if hasattr(choice, "add_args"):
            choice.add_args(parser)
        elif dataclass := getattr(choice, "__dataclass", None):
            gen_parser_from_dataclass(parser, dataclass())
        found |= set(parser._option_string_actions)
    return sorted(found - {"-h", "--help"})


if __name__ == "__main__":
    TABLE.write_text("".join(f"{flag}\n" for flag in declared_flags()), encoding="utf-8")
