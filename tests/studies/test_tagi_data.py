"""The data of the study of adapters from instructions are what their modules say."""

import json
from collections import Counter
from itertools import islice

import pytest
from studies.natural import cut
from studies.tagi import natural, programs
from studies.tagi.programs import ARRANGE, PARTS, REWRITE, instruction, solve

from apportion.tasks import load_tasks
from apportion.tasks.splits import normalised


def rows(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def files(folder):
    return {file.stem: rows(file) for file in sorted(folder.glob("*.jsonl"))}


def contents(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


class TestPrograms:
    @pytest.fixture(scope="class")
    def folder(self, tmp_path_factory):
        folder = tmp_path_factory.mktemp("programs")
        programs.write(folder)
        return folder

    @pytest.mark.parametrize(
        ("program", "word", "answer"),
        [
            (("reverse",), "abcd", "dcba"), (("rotate",), "abcd", "bcda"), (("swap",), "abcde", "ebcda"),
            (("double",), "abca", "aabbccaa"), (("behead",), "abcd", "bcd"), (("curtail",), "abcd", "abc"),
            (("upper",), "abcd", "ABCD"), (("number",), "aceh", "1358"), (("next",), "abgh", "bcha"),
            (("back",), "abgh", "hafg"), (("skip",), "abgh", "cdab"), (("opposite",), "abgh", "hgba"),
            (("reverse", "next"), "abch", "adcb"), (("number", "behead"), "hgab", "712"),
        ],
    )  # fmt: skip
    def test_parts_by_hand(self, program, word, answer):
        assert solve(program, word) == answer

    def test_sixty_and_twelve_that_share_nothing(self):
        train, held_out = programs.programs()
        assert (len(train), len(held_out)) == (60, 12)
        assert len(set(train) | set(held_out)) == 72
        assert programs.programs() == (train, held_out)

    def test_no_held_out_program_is_a_training_program_in_other_words(self):
        words = list(dict.fromkeys(islice(programs.words("likeness"), 400)))
        train, held_out = ([[solve(p, word) for word in words] for p in part] for part in programs.programs())
        for answers in held_out:
            likeness = max(sum(map(str.__eq__, answers, known)) / len(words) for known in train)
            assert likeness < 0.15
            assert all(answers != other for other in held_out if other is not answers)
        # The measure itself sees two programs that are one function.
        assert all(solve(("upper", "reverse"), word) == solve(("reverse", "upper"), word) for word in words)

    def test_every_part_is_trained_on_alone_and_in_both_places(self):
        train, held_out = programs.programs()
        for name in PARTS:
            assert (name,) in train
            for place in (0, 1):
                assert sum(len(program) == 2 and program[place] == name for program in train) == 4
                assert sum(program[place] == name for program in held_out) == 1
        assert all((one in ARRANGE) == (two in REWRITE) for one, two in held_out)

    def test_the_files_hold_what_the_programs_make(self, folder):
        for part, wanted, n in zip(("train", "held_out"), programs.programs(), (160, 60), strict=True):
            found = files(folder / part)
            assert set(found) == {"-".join(program) for program in wanted}
            for program in wanted:
                examples = found["-".join(program)]
                assert len({row["input"] for row in examples}) == len(examples) == n
                for row in examples:
                    assert row == {
                        "instruction": instruction(program),
                        "input": row["input"],
                        "output": solve(program, row["input"]),
                    }
                    assert len(row["input"]) in (4, 5, 6)
                    assert set(row["input"]) <= set("abcdefgh")

    def test_no_held_out_input_is_trained_on(self, folder):
        train, held_out = (
            {row["input"] for examples in files(folder / part).values() for row in examples}
            for part in ("train", "held_out")
        )
        assert train and held_out and not train & held_out

    def test_the_same_files_each_time(self, folder, tmp_path):
        programs.write(tmp_path)
        assert contents(tmp_path) == contents(folder)

    def test_the_library_reads_them_with_instructions_apart(self, folder):
        tasks = load_tasks(folder / "train", instruction="apart")
        assert set(tasks.instructions) == {instruction(program) for program in programs.programs()[0]}
        assert len(tasks) == 60
        assert all(len(task.validation) >= 8 and len(task.train) >= 140 for task in tasks)


class TestNatural:
    @pytest.fixture(scope="class")
    def tasks(self):
        return natural.read()

    @pytest.fixture(scope="class")
    def folder(self, tmp_path_factory):
        folder = tmp_path_factory.mktemp("natural")
        natural.write(folder)
        return folder

    @pytest.fixture(scope="class")
    def train(self, folder):
        return files(folder / "train")

    @pytest.fixture(scope="class")
    def held_out(self, folder):
        return files(folder / "held_out")

    def test_whole_tasks_are_held_out(self, tasks, train, held_out):
        assert (len(train), len(held_out)) == (59, 12)
        assert set(train) | set(held_out) == {task.name for task in tasks}
        said = {name: {row["instruction"] for row in examples} for name, examples in (train | held_out).items()}
        assert all(len(instructions) == 1 for instructions in said.values())
        assert len(set.union(*said.values())) == 71

    def test_every_held_out_tasks_category_is_trained_on_without_its_data_set(self, folder, tasks, train, held_out):
        categories = json.loads((folder / "categories.json").read_text())
        assert categories == {task.name: task.category for task in tasks}
        sources = {task.name: task.sources for task in tasks}
        left = Counter(categories[name] for name in train)
        for name in held_out:
            assert left[categories[name]] >= 1
            assert not any(sources[name] & sources[other] for other in train if categories[other] == categories[name])

    def test_counts_and_lengths(self, tasks, train, held_out):
        sizes = {task.name: len(task.instances) for task in tasks}
        assert all(len(examples) == 60 for examples in held_out.values())
        # Cleaning takes less than a seventh even of the smallest; no task of more than twice as many falls below 400.
        assert all(0.85 * min(sizes[name], 400) <= len(examples) <= 400 for name, examples in train.items())
        assert all(len(examples) == 400 for name, examples in train.items() if sizes[name] > 800)
        for row in [row for examples in (*train.values(), *held_out.values()) for row in examples]:
            assert 0 < len(row["instruction"]) <= 200
            assert 0 < len(row["input"]) <= 200
            assert 0 < len(row["output"]) <= 160

    def test_references_are_all_outputs_the_first_one_first(self, train, held_out):
        assert all(row["references"][0] == row["output"] for examples in held_out.values() for row in examples)
        assert any(len(row["references"]) > 1 for examples in held_out.values() for row in examples)
        assert not any("references" in row for examples in train.values() for row in examples)

    def test_nothing_evaluated_is_trained_on(self, folder, train, held_out):
        texts = [row["text"] for row in rows(folder / "text.jsonl")]
        assert len(texts) == len(set(texts)) > 30_000
        assert max(map(len, texts)) <= 600
        seen = texts + [row[key] for examples in train.values() for row in examples for key in ("input", "output")]
        seen = {normalised(text) for text in seen}
        evaluated = {normalised(row["input"]) for examples in held_out.values() for row in examples}
        assert not seen & evaluated
        everything = "\n".join(seen)
        long = [text for text in evaluated if len(text) >= 20]
        assert len(long) > 600
        assert not [text for text in long if text in everything]

    def test_texts_are_inputs_of_tasks_that_are_trained_on(self, folder, tasks, train):
        texts = {row["text"] for row in rows(folder / "text.jsonl")}
        own = {cut(text, 600) for task in tasks if task.name in train for text, _ in task.instances}
        assert texts <= own

    def test_the_library_reads_them_with_instructions_apart(self, folder, train):
        tasks = load_tasks(folder / "train", instruction="apart")
        assert tasks.names == tuple(train)
        assert len(set(tasks.instructions)) == 59
        assert load_tasks(folder / "held_out", instruction="apart").names == tuple(files(folder / "held_out"))

    def test_the_rule_says_when_it_finds_too_few(self, tasks):
        few = [task for task in tasks if task.category == "dialogue-generation"]
        with pytest.raises(ValueError, match="only 1 of the 12 tasks to hold out"):
            natural.held_out(few)
