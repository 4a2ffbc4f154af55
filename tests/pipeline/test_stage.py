"""A stage is one class: a toy stage is run, skipped, run again, and listed by status."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxcurate as jc
from jaxcurate import cli
from jaxcurate.artifacts import folders
from jaxcurate.config import ClusterConfig, Config, SampleConfig
from jaxcurate.pipeline import STAGES, Stage, run
from jaxcurate.pipeline.output import Folder
from jaxcurate.runtime.devices import Devices
from jaxcurate.runtime.progress import Progress


class Toy(Stage):
    name = "toy"

    def output(self, settings, path):
        return Folder(path / "toy", "toy")

    def inputs(self, context):
        return {"title": context.settings.title}

    def run(self, context, card):
        with folders.new_folder(context.folder("toy"), card(), "toy") as folder:
            folder.write_text("title.txt", context.settings.title)
        return {"letters": len(context.settings.title)}


@pytest.fixture
def settings(tmp_path):
    x = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    return Config(
        source=f"npy:{tmp_path / 'x.npy'}",
        cluster=ClusterConfig((jc.Level(20, 1, 3), jc.Level(5))),
        sample=SampleConfig(size=30),
        title="A title",
    )


class Lines(Progress):
    def __init__(self):
        super().__init__()
        self.lines = []

    def line(self, text):
        self.lines.append(text)


def test_a_stage_of_ten_lines(settings, tmp_path):
    def toy(settings):
        lines = Lines()
        pipeline = run.Pipeline(settings, tmp_path / "work", lines, stages=[Toy()])
        before = pipeline.status()[0]
        pipeline.run()
        assert pipeline.status() == [("toy", "done", str(tmp_path / "work" / "toy"))]
        return before.state, [line.split(",")[0] for line in lines.lines]

    assert toy(settings) == ("missing", ["toy ...", "toy: letters 7"])
    assert toy(settings) == ("done", ["toy: done before"])
    other = dataclasses.replace(settings, title="Another title")
    assert toy(other) == ("out of date", ["toy ... (out of date)", "toy: letters 13"])
    (tmp_path / "work" / "toy" / "title.txt").unlink()
    assert toy(other)[0].startswith("damaged: ")
    (tmp_path / "work" / "toy" / "mine.txt").write_text("mine")
    with pytest.raises(jc.InputError, match="mine"):
        toy(settings)
    assert (tmp_path / "work" / "toy" / "title.txt").read_text() == "Another title"


def test_the_run_knows_no_stage_by_name():
    names = {stage.name for stage in STAGES}
    text = Path(run.__file__).read_text()
    assert len(names) == len(STAGES) == 9
    assert not {name for name in names if f'"{name}"' in text or f"`{name}`" in text}


def test_every_stage_is_a_command(capsys):
    for command in ("run", *(stage.name for stage in STAGES), "status"):
        assert cli.main([command]) == 2
        assert "--config is missing" in capsys.readouterr().err
    assert cli.main(["toy"]) == 2
    assert "'toy' is not a command; usage: jaxcurate run|embed|" in capsys.readouterr().err


def test_a_stage_is_asked_before_others_work_for_it(settings, tmp_path):
    class Choosy(Toy):
        def foresee(self, context, chosen):
            if "embed" in chosen:
                raise jc.InputError("nothing can be made of this")

    stages = [*STAGES, Choosy()]
    pipeline = run.Pipeline(settings, tmp_path / "work", Lines(), stages=stages)
    with pytest.raises(jc.InputError, match="nothing can be made of this"):
        pipeline.run(["embed"])
    assert not (tmp_path / "work").exists()
    pipeline.run(["toy"])


def test_one_device_is_one_device_in_every_stage(settings, tmp_path, monkeypatch):
    used = []

    def watched(method):
        def watch(self, *arguments, **named):
            used.append(self.count)
            return method(self, *arguments, **named)

        return watch

    for name in ("spmd", "put_rows"):
        monkeypatch.setattr(Devices, name, watched(getattr(Devices, name)))
    np.save(tmp_path / "new.npy", np.random.default_rng(1).normal(size=(20, 8)))
    settings = dataclasses.replace(
        settings,
        n_devices=1,
        dedup=dataclasses.replace(settings.dedup, enabled=True, n_clusters=5),
        evaluate=dataclasses.replace(settings.evaluate, arms=()),
        grow=dataclasses.replace(settings.grow, source=f"npy:{tmp_path / 'new.npy'}", prefix="n"),
    )
    assert jax.device_count() == 4
    pipeline = run.Pipeline(settings, tmp_path / "work", Progress(quiet=True))
    pipeline.run()
    assert set(used) == {1} and len(used) > 10
    for stage in ("embed", "dedup", "cluster", "sample", "grow"):
        assert pipeline.context.card(stage)["devices"] == "1 x cpu"
