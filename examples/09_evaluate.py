"""Ask a trained model benchmarks: questions of your own, before, during and after training, with what they cost."""

import json
import tempfile
from pathlib import Path

import yaml

import apportion as ap

MODEL = {
    "config": {
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 128,
        "tie_word_embeddings": True,
    },
    "tokenizer": {"train": "character"},
}

# As the playground asks: which letter comes first?
WORDS = ("abcd", "dabb", "cafe", "bead", "ebbe", "fade", "gabe", "hedge", "aged", "bade")
QUESTIONS = [{"question": f"first {word}\n", "answer": word[0]} for word in WORDS]


def own_task(folder: Path) -> str:
    """Write the questions as a task in the harness's own format, and return its file."""
    rows = folder / "letters.jsonl"
    rows.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
    task = {
        "task": "letters",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(rows)}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 2, "do_sample": False},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }
    file = folder / "letters.yaml"
    file.write_text(yaml.safe_dump(task))
    return str(file)


with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    task = own_task(folder)
    run = ap.train(
        model=MODEL,
        tasks={"source": "playground", "names": ["first", "greet"]},
        budget=6000,
        mixture="uniform",
        evaluate={"tasks": [task], "every": "50%"},
        training={"learning_rate": 3e-3, "per_device_train_batch_size": 16},
        out=folder / "run",
    )
    record = ap.read_run(run.path)
    for entry in record.history:
        if "evaluation" in entry:
            print(f"step {entry['step']}: {entry['evaluation']['letters']:.2f} of the answers are right")

    # Asked again, nothing is left to do. Another benchmark may be asked at any time.
    done = ap.evaluate(run, [task])
    score = done.record["tasks"]["letters"]["metrics"]["exact_match"]
    print(f"at the end: {score['value']:.2f} ± {score['error']:.2f}; asked again: {done.asked} tasks")
    spent = record.spent["evaluate"]
    print(f"charged to 'evaluate': {spent['processed']:,} tokens, {spent['flops']:.3g} FLOPs")
