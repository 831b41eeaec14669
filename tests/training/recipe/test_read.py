"""Reading recipes: what is refused, and in which words."""

from pathlib import Path

import pytest

from tapster.runtime.errors import ConfigError
from tapster.training.recipe.read import read_recipe
from tapster.training.student.ends import wanted_source

MINIMAL = """
name = "plain"
title = "A plain one"

[student]
model = "demo"

[[stages]]
name = "sft"
steps = 100
data = { train = ["sample:chat"] }

[[stages.objective]]
term = "cross_entropy"

[small.stages.sft]
steps = 5

[small.stages.sft.objective.cross_entropy]
weight = 0.5
"""


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "plain.toml"
    path.write_text(MINIMAL)
    return path


def refusal(path: Path, *overrides: tuple[str, str], small: bool = False, data: tuple[str, ...] = ()) -> str:
    with pytest.raises(ConfigError) as raised:
        read_recipe(str(path), overrides=overrides, small=small, data=data)
    message = str(raised.value)
    assert "\n" not in message
    return message


def test_a_recipe_has_the_values_of_its_file_and_the_defaults(recipe_file: Path) -> None:
    recipe = read_recipe(str(recipe_file))
    [stage] = recipe.stages
    assert (recipe.name, stage.steps, stage.batch_size, stage.optimizer.name) == ("plain", 100, 32, "adamw")


def test_the_small_form_changes_values_by_name(recipe_file: Path) -> None:
    full, small = read_recipe(str(recipe_file)), read_recipe(str(recipe_file), small=True)
    assert (full.stages[0].steps, full.stages[0].objective[0].weight) == (100, 1.0)
    assert (small.stages[0].steps, small.stages[0].objective[0].weight) == (5, 0.5)
    assert small.stages[0].data == full.stages[0].data
    assert small.small == {}


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("stages.sft.stepps", "3", "stages.sft.stepps: unknown key; did you mean steps?"),
        ("stages.sft.data.trian", "[]", "stages.sft.data.trian: unknown key; did you mean train?"),
        ("studnt", "{}", "studnt: unknown key; did you mean student?"),
        ("stages.stf.steps", "3", "stages.stf: there is no such stage; did you mean sft?"),
        ("stages.sft.objective.cwce.weight", "3", "there is no such objective; there are cross_entropy"),
        ("stages.sft.steps", "true", "stages.sft.steps: is true: it should be a valid integer"),
        ("stages.sft.steps", "'20'", "stages.sft.steps: is '20': it should be a valid integer"),
        ("stages.sft.steps", "0", "stages.sft.steps: is 0: it should be greater than or equal to 1"),
        ("stages.sft.steps", "", "stages.sft.steps: give either steps or epochs"),
        ("stages.sft.optimizer.lr", "nan", "stages.sft.optimizer.lr: is nan: it should be a finite number"),
        ("stages.sft.optimizer.name", "adamv", "it should be 'adamw' or 'adalite'"),
        ("stages.sft.optimizer", "fast", "stages.sft.optimizer: is 'fast': it should be an object"),
        ("stages.sft.objective", "[{term = 'cross_entrpy'}]", "did you mean 'cross_entropy'?"),
        ("stages.sft.objective", "[]", "stages.sft.objective: is []: list should have at least 1 item"),
        ("stages.sft.objective.cross_entropy.pre", "'token'", "has no option 'pre': did you mean 'per'?"),
        ("stages.sft.objective.cross_entropy.weight", "'much'", "weight: is 'much': give a number, or points"),
        ("stages.sft.objective.cross_entropy.weight", "[[0, 1], [101, 2]]", "step 101 lies past the stage's last step"),
        ("stages.sft.objective.cross_entropy.weight", "[[5, 1], [2, 2]]", "cross_entropy.weight: a schedule goes from"),
        ("stages.sft.learning_rate.warmup_steps", "101", "warmup_steps: is 101, and the stage has 100 steps"),
        ("stages.sft.learning_rate", "{warmup_steps = 1, warmup_ratio = 0.1}", "give either warmup_steps or warmup_r"),
        ("stages.sft.batch_size", "30", "batch_size: is 30: make it a multiple of micro_batch_size, 4"),
        ("stages.sft.frozen", "['[']", "stages.sft.frozen: '[' is no regular expression"),
        (
            "stages.sft.data.train",
            "['sample:chta']",
            "stages.sft.data.train: no sample data 'chta': did you mean sample:chat",
        ),
        ("stages.sft.data.eval", "['hub:a:b:c:d']", "stages.sft.data.eval: hub:a:b:c:d has too many parts"),
        (
            "stages.sft.objective.cross_entropy.weight",
            "-0.5",
            "cross_entropy.weight: is -0.5, with which the loss falls",
        ),
        ("stages.sft.objective.cross_entropy.weight", "[[0, 1], [9, -1]]", "weight: is -1, with which the loss falls"),
        ("stages.sft.objective.cross_entropy.weight", "0", "stages.sft.objective: has no term with a weight"),
        ("stages.sft.objective", "[{term = 'entropy'}]", "stages.sft.objective: has no term with a weight"),
        ("stages.sft.objective.cross_entropy.weight", "[[4, 0], [9, 1]]", "objective: all weights are 0 at step 0"),
        ("stages.sft.optimizer.betas", "[0.9]", "stages.sft.optimizer.betas: is [0.9]: it has too few values"),
        ("stages.sft.data.train", "[]", "stages.sft.data.train: is empty"),
        ("stages.sft.data.curriculum.order", "strict", "stages.sft.data.curriculum.by: is missing"),
        ("stages.sft.data.curriculum.by", "length", "has no effect with order = 'shuffle'"),
        ("stages.sft.rounds", "{count = 1}", "which no objective reads: add an [[objective]] with term = 'pro'"),
        ("stages.sft.name", "'S F T'", "name: use small letters"),
        ("student.scratch", "{hidden_size = 8}", "student.scratch.model_type: is missing"),
        ("student.model", "", "student: give either model or scratch"),
        (
            "student.chat_template",
            "zefyr",
            "student.chat_template: no built-in chat template 'zefyr', did you mean zephyr",
        ),
        ("student.tokenizer", "'train:12'", "student.tokenizer: is 'train:12': write train:N"),
        ("teacher.kind", "online", "teacher.model: is missing"),
        ("teacher", "{kind = 'online', model = 'demo', endpoint = 'http://a'}", "an online teacher is in memory"),
        ("teacher", "{kind = 'text-cache', endpoint = 'a:80'}", "teacher.endpoint: is 'a:80': give a base URL"),
        ("teacher", "{kind = 'text-cache', endpoint = 'http://me:pw@a/v1'}", "teacher.endpoint: names a user, which"),
        ("teacher", "{kind = 'text-cache'}", "a text-cache needs an endpoint, a model to serve, or a folder"),
        ("teacher", "{kind = 'online', model = 'demo', sampled = true}", "teacher.sampled: is for a logit-cache"),
        ("name", "", "name: is missing"),
        ("name", "'A B'", "name: is 'A B': string should match pattern"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(recipe_file: Path, key: str, value: str, said: str) -> None:
    message = refusal(recipe_file, (key, value))
    assert message.startswith(f"{recipe_file}: ")
    assert said in message


def test_a_term_gets_what_it_needs_or_is_refused(recipe_file: Path) -> None:
    kl = ("stages.sft.objective", "[{term = 'forward_kl'}]")
    assert "needs a teacher's distributions, and there is no teacher" in refusal(recipe_file, kl)
    text = ("teacher", "{kind = 'text-cache', model = 'demo'}")
    assert "a text-cache has none" in refusal(recipe_file, kl, text)
    cache = ("teacher", "{kind = 'logit-cache', model = 'demo'}")
    hidden = ("stages.sft.objective", "[{term = 'hidden_mse'}]")
    assert read_recipe(str(recipe_file), overrides=[kl, cache]).teacher
    assert "needs a teacher's hidden states, and a logit-cache has none" in refusal(recipe_file, hidden, cache)
    online = ("teacher", "{kind = 'online', model = 'demo'}")
    assert read_recipe(str(recipe_file), overrides=[hidden, online]).stages[0].objective[0].term == "hidden_mse"


@pytest.mark.parametrize(
    ("term", "is_refused"),
    [
        ("{term = 'uld'}", True),
        ("{term = 'jsd', beta = 0}", True),
        ("{term = 'reverse_kl', weight = 0}", True),
        ("{term = 'tvd'}", True),
        ("{term = 'ads'}", True),
        ("{term = 'ads', reference = 'self', max_kl = 1.0}", False),
        ("{term = 'forward_kl', temperature = 2.0}", True),
        ("{term = 'forward_kl'}", False),
    ],
)
def test_a_sample_is_refused_before_it_is_taken_where_it_would_bias(
    recipe_file: Path, term: str, is_refused: bool
) -> None:
    overrides = [
        ("teacher", "{kind = 'logit-cache', model = 'demo', sampled = true}"),
        ("stages.sft.objective", f"[{term}, {{term = 'cross_entropy'}}]"),
    ]
    if is_refused:
        assert "would be biased by a sampled teacher: set teacher.sampled to false" in refusal(recipe_file, *overrides)
    else:
        assert read_recipe(str(recipe_file), overrides=overrides).teacher


def test_uld_of_a_cache_is_of_temperature_1(recipe_file: Path) -> None:
    cache = ("teacher", "{kind = 'logit-cache', model = 'demo'}")
    plain, tempered = (
        ("stages.sft.objective", f"[{{term = 'uld', temperature = {value}}}]") for value in ("1.0", "2.0")
    )
    assert "objective.uld.temperature: must be 1, for at another a logit-cache" in refusal(recipe_file, cache, tempered)
    assert read_recipe(str(recipe_file), overrides=[cache, plain]).teacher
    online = ("teacher", "{kind = 'online', model = 'demo'}")
    assert read_recipe(str(recipe_file), overrides=[online, tempered]).teacher


def test_packing_excludes_what_tells_rows_apart(recipe_file: Path) -> None:
    packing = ("stages.sft.data.packing", "true")
    assert read_recipe(str(recipe_file), overrides=[packing]).stages[0].data.packing
    cwce = ("stages.sft.objective", "[{term = 'cwce'}]")
    assert "packing joins them" in refusal(recipe_file, packing, cwce)
    sorts = ("stages.sft.data.curriculum", "{order = 'strict', by = 'length'}")
    assert "stages.sft.data.packing: mixes rows" in refusal(recipe_file, packing, sorts)
    assert "Kimi Delta Attention" in refusal(recipe_file, packing, ("student.kda", "{}"))


def test_one_of_two_keys_replaces_the_other(recipe_file: Path) -> None:
    stage = read_recipe(str(recipe_file), overrides=[("stages.sft.epochs", "2.5")]).stages[0]
    assert (stage.steps, stage.epochs) == (None, 2.5)
    assert "give either" in refusal(recipe_file, ("stages.sft.steps", ""))


def test_terms_of_one_kind_are_numbered(recipe_file: Path) -> None:
    two = ("stages.sft.objective", "[{term = 'cross_entropy'}, {term = 'cross_entropy', per = 'sequence'}]")
    second = ("stages.sft.objective.cross_entropy-2.weight", "0.25")
    objectives = read_recipe(str(recipe_file), overrides=[two, second]).stages[0].objective
    assert [one.weight for one in objectives] == [1.0, 0.25]


def test_a_term_is_taken_away(recipe_file: Path) -> None:
    two = ("stages.sft.objective", "[{term = 'cross_entropy'}, {term = 'tea'}]")
    away = ("stages.sft.objective.cross_entropy", "")
    [left] = read_recipe(str(recipe_file), overrides=[two, away]).stages[0].objective
    assert left.term == "tea"
    assert "should have at least 1 item" in refusal(recipe_file, away)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("stages.sft.objective.cross_entropy", "0", "cross_entropy: is 0, and this objective is a table: set one"),
        ("stages.sft", "5", "stages.sft: is 5, and this stage is a table: set one of its keys, or nothing at all"),
        ("small.title", "x", "small.title: set the key itself, without 'small': it holds in the form that runs"),
        ("small", "", "small: set the key itself"),
    ],
)
def test_what_would_change_nothing_is_refused(recipe_file: Path, key: str, value: str, said: str) -> None:
    assert said in refusal(recipe_file, (key, value))


def test_a_template_may_be_a_file(recipe_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "my.jinja"
    given = ("student.chat_template", f"'{path}'")
    assert f"student.chat_template: cannot read {path}: No such file" in refusal(recipe_file, given)
    path.write_bytes(b"\xff")
    assert f"student.chat_template: {path} is no UTF-8 text" in refusal(recipe_file, given)
    path.write_text("{{ messages }}")
    student = read_recipe(str(recipe_file), overrides=[given]).student
    assert student.chat_template is not None
    assert wanted_source(student.chat_template) == "{{ messages }}"


def test_other_data_comes_without_what_the_recipe_says_of_its_own(recipe_file: Path) -> None:
    own = [("stages.sft.data.format", "tinycot"), ("stages.sft.data.eval", "['hub:a/b']")]
    recipe_file.write_text(
        MINIMAL.replace('["sample:chat"] }', '["hub:a/b"], eval = ["hub:a/c"], format = "tinycot" }')
    )
    data = read_recipe(str(recipe_file), data=["mine.jsonl", "sft=more.jsonl"]).stages[0].data
    assert (data.train, data.eval, data.format) == (["mine.jsonl", "more.jsonl"], [], "auto")
    data = read_recipe(str(recipe_file), data=["mine.jsonl"], overrides=own).stages[0].data
    assert (data.format, data.eval) == ("tinycot", ["hub:a/b"])


def test_data_for_a_stage_that_is_not_there(recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "there is no stage stf; did you mean sft?" in refusal(recipe_file, data=("stf=x.jsonl",))
    assert "--data is empty" in refusal(recipe_file, data=("",))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b.jsonl").touch()
    assert read_recipe(str(recipe_file), data=["a=b.jsonl"]).stages[0].data.train == ["a=b.jsonl"]


def test_faults_of_the_small_form_show_without_it(recipe_file: Path) -> None:
    recipe_file.write_text(MINIMAL.replace("[small.stages.sft]\nsteps = 5", "[small.stages.sft]\nstep = 5"))
    assert "small form: stages.sft.step: unknown key; did you mean steps?" in refusal(recipe_file)
    recipe_file.write_text(MINIMAL.replace("[small.stages.sft]\nsteps = 5", "[small.stages.stf]\nsteps = 5"))
    assert "small.stages.stf: there is no such stage; did you mean sft?" in refusal(recipe_file)


def test_a_recipe_without_a_small_form_is_not_blamed_for_one(recipe_file: Path) -> None:
    recipe_file.write_text(MINIMAL[: MINIMAL.index("[small")].replace('name = "plain"\n', ""))
    assert refusal(recipe_file) == f"{recipe_file}: name: is missing"
    recipe_file.write_text(MINIMAL.replace('name = "plain"\n', ""))
    assert refusal(recipe_file) == f"{recipe_file}: name: is missing"
    recipe_file.write_text("small = 3\n" + MINIMAL[: MINIMAL.index("[small")])
    assert "small: is 3, and the small form is a table" in refusal(recipe_file)


def test_entropy_is_looked_at_and_trained_on_only_where_it_has_a_weight(recipe_file: Path) -> None:
    def weights(entropy: str) -> list[object]:
        objective = ("stages.sft.objective", f"[{{term = 'cross_entropy'}}, {entropy}]")
        return [one.weight for one in read_recipe(str(recipe_file), overrides=[objective]).stages[0].objective]

    assert weights("{term = 'entropy'}") == [1.0, 0.0]
    assert weights("{term = 'entropy', weight = -0.1}") == [1.0, -0.1]


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    assert "did you mean dante?" in refusal(Path("dnate"))
    assert "there is no file" in refusal(tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("name = \n")
    assert f"{broken} is no TOML" in refusal(broken)
    broken.write_bytes(b"name = '\xff'")
    assert f"{broken} is no TOML" in refusal(broken)
    broken.write_text("")
    assert "is missing" in refusal(broken)
    assert "no small form" in refusal(broken, small=True)


def test_two_stages_of_one_name_are_refused(recipe_file: Path) -> None:
    stage = MINIMAL[MINIMAL.index("[[stages]]") : MINIMAL.index("[small")]
    recipe_file.write_text(MINIMAL[: MINIMAL.index("[small")] + stage)
    assert "stages: two are called sft" in refusal(recipe_file)


def test_the_folder_of_a_run_is_a_recipe(recipe_file: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(MINIMAL)
    assert read_recipe(str(tmp_path)) == read_recipe(str(recipe_file))
