"""Frozen dataclasses from TOML and overrides, and back."""

import dataclasses
import math
import sys
from dataclasses import dataclass, field
from typing import Literal

import pytest
import tomli_w
from hypothesis import example, given, settings
from hypothesis import strategies as st

from simcse.config import build, merge, parse_overrides, to_dict
from simcse.errors import ConfigError
from simcse.losses.settings import LossConfig
from simcse.model.head import HEAD_POLICIES
from simcse.model.pooling import POOLINGS
from simcse.train.optim import OptimConfig
from simcse.train.settings import DataConfig, EvalConfig, ModelConfig, TrainConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Inner:
    size: int = 3
    rate: float = 0.5
    policy: Literal["none", "always"] | None = None


@dataclass(frozen=True)
class Outer:
    name: str
    on: bool = False
    limit: int | None = None
    mode: Literal["fast", "exact"] = "fast"
    names: tuple[str, ...] = ()
    counts: tuple[int, ...] = (1,)
    inner: Inner = field(default_factory=Inner)


def outer(**values):
    return build(Outer, {"name": "x", **values})


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("name", "3", "3"),
        ("name", "", ""),
        ("on", True, True),
        ("on", "true", True),
        ("on", "Yes", True),
        ("on", "1", True),
        ("on", "FALSE", False),
        ("on", "no", False),
        ("on", "0", False),
        ("limit", 7, 7),
        ("limit", "7", 7),
        ("limit", 7.0, 7),
        ("limit", "none", None),
        ("limit", "None", None),
        ("limit", "", None),
        ("limit", None, None),
        ("mode", "exact", "exact"),
        ("names", "a,b", ("a", "b")),
        ("names", "a, b", ("a", "b")),
        ("names", ["a", "b"], ("a", "b")),
        ("names", ("a",), ("a",)),
        ("names", "", ()),
        ("counts", "1,2", (1, 2)),
        ("counts", [1, 2.0], (1, 2)),
    ],
)
def test_a_value_becomes_the_type_of_its_field(key, value, expected):
    got = getattr(outer(**{key: value}), key)
    assert got == expected
    assert type(got) is type(expected)


@pytest.mark.parametrize(
    ("value", "expected"), [(1, 1.0), ("1e-5", 1e-5), (0.25, 0.25), ("-3", -3.0)]
)
def test_a_float_may_be_written_in_any_way(value, expected):
    got = outer(inner={"rate": value}).inner.rate
    assert got == expected
    assert type(got) is float


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("name", 5, "name must be str, got 5"),
        ("name", True, "name must be str, got True"),
        ("name", None, "name must be str, got None"),
        ("on", 1, "on must be bool, got 1"),
        ("on", "maybe", "on must be bool, got 'maybe'"),
        ("limit", True, "limit must be int, got True"),
        ("limit", 3.5, r"limit must be int, got 3\.5"),
        ("limit", "3.5", r"limit must be int, got '3\.5'"),
        ("limit", math.inf, "limit must be int, got inf"),
        ("limit", [3], r"limit must be int, got \[3\]"),
        ("mode", "exakt", "mode must be one of fast, exact, got 'exakt'; did you mean 'exact'"),
        ("mode", 3, "mode must be one of fast, exact, got 3"),
        ("names", 3, "names must be a list, got 3"),
        ("names", {"a": 1}, "names must be a list, got {'a': 1}"),
        ("names", [1], "names must be str, got 1"),
        ("counts", "1,x", "counts must be int, got 'x'"),
        ("inner", 3, "inner is a section, got the value 3"),
        ("inner", {"size": "big"}, r"inner\.size must be int, got 'big'"),
        ("inner", {"rate": "fast"}, r"inner\.rate must be float, got 'fast'"),
        ("inner", {"rate": False}, r"inner\.rate must be float, got False"),
        ("inner", {"rate": "nan"}, r"inner\.rate must be finite, got 'nan'"),
        ("inner", {"rate": math.inf}, r"inner\.rate must be finite, got inf"),
        ("inner", {"rate": 10**400}, r"inner\.rate must be float, got 10+"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_by_name(key, value, problem):
    with pytest.raises(ConfigError, match=problem) as error:
        outer(**{key: value})
    assert error.value.exit_code == 2


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"limitt": 3}, "unknown setting 'limitt'; did you mean 'limit'"),
        ({"inner": {"sise": 3}}, r"unknown setting 'inner\.sise'; did you mean 'inner\.size'"),
        ({"zzz": 3}, "unknown setting 'zzz'; known: name, on, limit, mode, names, counts, inner"),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(values, problem):
    with pytest.raises(ConfigError, match=problem):
        outer(**values)


def test_a_missing_setting_is_named():
    with pytest.raises(ConfigError, match=r"part\.name is missing"):
        build(Outer, {"on": True}, section="part.")


def test_an_optional_choice_may_itself_be_called_none():
    assert outer(inner={"policy": "none"}).inner.policy == "none"
    assert outer(inner={"policy": None}).inner.policy is None


def test_what_is_not_given_keeps_its_default():
    built = outer(inner={"size": 9})
    assert built == Outer("x", inner=Inner(size=9))


def test_merge_lays_values_on_top_and_changes_neither():
    base = {"a": 1, "s": {"x": 1, "y": 2}, "t": {"z": 1}}
    over = {"a": 2, "s": {"y": 3, "w": 4}, "t": 5}
    assert merge(base, over) == {"a": 2, "s": {"x": 1, "y": 3, "w": 4}, "t": 5}
    assert base == {"a": 1, "s": {"x": 1, "y": 2}, "t": {"z": 1}}
    assert over == {"a": 2, "s": {"y": 3, "w": 4}, "t": 5}


def test_overrides_nest_and_the_last_of_a_name_counts():
    overrides = ["loss.temperature=0.1", "seed = 3", "loss.mlm_weight=1", "seed=4", "a.b.c=x=y"]
    assert parse_overrides(overrides) == {
        "loss": {"temperature": "0.1", "mlm_weight": "1"},
        "seed": "4",
        "a": {"b": {"c": "x=y"}},
    }


@pytest.mark.parametrize("wrong", ["loss.temperature", "=3", "loss.=3", ".x=3", "a..b=3", ""])
def test_an_override_that_is_none_is_refused(wrong):
    with pytest.raises(ConfigError, match=r"expected section\.key=value"):
        parse_overrides([wrong])


words = st.text("abc./,-", min_size=1, max_size=8)
positive = st.floats(1e-9, 1e9)
share = st.floats(0, 1, exclude_max=True)
count = st.integers(2, 2**40)
configs = st.builds(
    TrainConfig,
    seed=st.integers(0, 2**32 - 1),
    precision=st.sampled_from(["auto", "fp32", "bf16"]),
    model=st.builds(
        ModelConfig,
        pooling=st.none() | st.sampled_from(POOLINGS),
        head=st.none() | st.sampled_from(HEAD_POLICIES),
        max_length=st.none() | st.integers(3, 512),
        normalize=st.none() | st.booleans(),
        dropout=st.none() | share,
    ),
    data=st.builds(
        DataConfig,
        columns=st.none() | words,
        bad_lines=st.sampled_from(["error", "skip"]),
        limit=st.none() | count,
    ),
    loss=st.builds(
        LossConfig,
        temperature=positive,
        hard_negative_weight=positive,
        mask_duplicates=st.booleans(),
        mlm_weight=positive,
    ),
    optim=st.builds(
        OptimConfig,
        lr=positive,
        batch_size=count,
        epochs=positive,
        max_steps=st.none() | count,
        warmup=share,
        schedule=st.sampled_from(["linear", "cosine", "constant"]),
    ),
    eval=st.builds(
        EvalConfig,
        every=count,
        dev=words.filter(lambda w: all(w.split(","))),
        patience=st.none() | count,
    ),
)


@settings(max_examples=30, deadline=None)
@given(configs)
@example(TrainConfig(model=ModelConfig(head="none")))
def test_settings_come_back_from_toml_and_from_overrides(config):
    plain = to_dict(config)
    assert build(TrainConfig, tomllib.loads(tomli_w.dumps(plain))) == config
    overrides = []
    for key, value in plain.items():
        section = value.items() if isinstance(value, dict) else [(None, value)]
        overrides += [
            f"{key}.{name}={inner}" if name else f"{key}={inner}"
            for name, inner in section
            if inner != {}
        ]
    assert build(TrainConfig, parse_overrides(overrides)) == config


def test_to_dict_is_plain():
    config = outer(names=["a"], limit=None)
    assert to_dict(config) == {
        "name": "x",
        "on": False,
        "mode": "fast",
        "names": ["a"],
        "counts": [1],
        "inner": {"size": 3, "rate": 0.5},
    }


def test_a_training_setting_that_may_be_none_is_none_by_default():
    """TOML has no None: `to_dict` leaves it out, so only a default of None comes back."""
    for section in (TrainConfig, ModelConfig, DataConfig, LossConfig, OptimConfig, EvalConfig):
        for setting in dataclasses.fields(section):
            if "None" in str(setting.type):
                assert setting.default is None, setting


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("seed=-1", "seed must be from 0"),
        ("seed=4294967296", "seed must be from 0"),
        ("precision=fp16", "precision must be one of auto, fp32, bf16"),
        ("model.dropout=1", r"model\.dropout must be from 0 to below 1"),
        ("model.pooling=avg", r"model\.pooling must be one of cls, mean"),
        ("model.max_length=2", r"model\.max_length must be at least 3"),
        ("model.layers=0", r"model\.layers must be at least 1"),
        ("data.limit=1", r"data\.limit must be at least 2"),
        ("loss.temperature=0", r"loss\.temperature must be > 0"),
        ("loss.hard_negative_weight=0", "the paper's alpha, not its logarithm"),
        ("loss.mlm_weight=-1", r"loss\.mlm_weight must be >= 0"),
        ("loss.contrastive_weight=0", "both 0"),
        ("loss.mlm_rate=1", r"loss\.mlm_rate must be between 0 and 1"),
        ("optim.lr=0", r"optim\.lr must be > 0"),
        ("optim.lr=inf", r"optim\.lr must be finite"),
        ("optim.batch_size=1", r"optim\.batch_size must be at least 2"),
        ("optim.epochs=0", r"optim\.epochs must be > 0"),
        ("optim.max_steps=0", r"optim\.max_steps must be at least 1"),
        ("optim.weight_decay=-1", r"optim\.weight_decay and optim\.clip_norm must be >= 0"),
        ("optim.clip_norm=-1", r"optim\.weight_decay and optim\.clip_norm must be >= 0"),
        ("optim.warmup=1", r"optim\.warmup must be from 0 to below 1"),
        ("eval.every=0", r"eval\.every must be at least 1"),
        ("eval.dev=stsb,", "eval.dev must be none or name sets, got .stsb,."),
        ("eval.dev=none,stsb", "eval.dev must be none or name sets"),
        ("eval.patience=0", r"eval\.patience must be at least 1"),
    ],
)
def test_a_training_setting_out_of_range_is_refused(override, problem):
    with pytest.raises(ConfigError, match=problem):
        build(TrainConfig, parse_overrides([override]))


@pytest.mark.parametrize(
    "setting",
    [
        (LossConfig, "temperature"),
        (LossConfig, "hard_negative_weight"),
        (LossConfig, "contrastive_weight"),
        (LossConfig, "mlm_weight"),
        (LossConfig, "mlm_rate"),
        (OptimConfig, "lr"),
        (OptimConfig, "epochs"),
        (OptimConfig, "weight_decay"),
        (OptimConfig, "clip_norm"),
        (OptimConfig, "warmup"),
        (ModelConfig, "dropout"),
    ],
)
def test_settings_made_in_python_refuse_nan(setting):
    section, name = setting
    with pytest.raises(ConfigError, match=name):
        section(**{name: math.nan})
