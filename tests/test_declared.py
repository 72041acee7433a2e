"""Fields read from a class's source are those that the class has."""

from dataclasses import fields

import pytest
from transformers import TrainingArguments

from apportion._declared import declared
from apportion.mixtures import MIXTURES
from apportion.selections import SELECTIONS
from apportion.tasks.sources import SOURCES
from apportion.weights import WEIGHTS


@pytest.mark.parametrize(
    ("family", "name"), [(family, name) for family in (MIXTURES, SELECTIONS, WEIGHTS, SOURCES) for name in family]
)
def test_of_every_method(family, name):
    cls = family.get(name)
    assert declared(f"{cls.__module__}:{cls.__name__}") == set(cls.model_fields)


def test_of_training():
    taken = {field.name for field in fields(TrainingArguments) if field.init}
    assert taken <= declared("transformers.training_args:TrainingArguments")


def test_of_what_is_not_there():
    assert declared("no_such_package:Thing") == set()
    assert declared("apportion.mixtures.adapt:NoSuchClass") == set()
    assert declared("apportion.no_such_module:Thing") == set()
