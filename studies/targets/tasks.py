"""Suite G: tasks of Natural Instructions as sources, held-out tasks of six categories as targets."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Sequence

from studies.natural import DEFINITION, INPUT, OUTPUT, cut, data
from studies.targets.skills import Pairs
from studies.targets.suites import GIVEN, UNSEEN, Suite

# One held-out task by category, each with more than a thousand instances; others of the six categories are sources.
TARGETS = {
    "question-answering": "task898_freebase_qa_answer_generation",
    "question-generation": "task821_protoqa_question_generation",
    "sentence-composition": "task187_snli_entailment_to_contradiction_text_modification",
    "information-extraction": "task1413_dart_object_identification",
    "named-entity-recognition": "task1481_gene_extraction_bc2gm_dataset",
    "title-generation": "task769_qed_summarization",
}
# Two sources of each category where there are two, and six of others, so that there are 18.
SOURCES = (
    "task080_piqa_answer_generation",
    "task820_protoqa_answer_generation",
    "task344_hybridqa_answer_generation",
    "task897_freebase_qa_topic_question_generation",
    "task040_qasc_question_generation",
    "task1660_super_glue_question_generation",
    "task184_snli_entailment_to_neutral_text_modification",
    "task185_snli_contradiction_to_neutral_text_modification",
    "task038_qasc_combined_fact",
    "task1411_dart_subject_identification",
    "task958_e2e_nlg_text_generation_parse",
    "task1453_person_entity_extraction_btc_corpus",
    "task1540_parsed_pdfs_summarization",
    "task743_eurlex_summarization",
    "task899_freebase_qa_topic_generation",
    "task589_amazonfood_summary_text_generation",
    "task455_swag_context_generation",
    "task1195_disflqa_disfluent_to_fluent_conversion",
)
SIZE = 2000


def natural() -> Suite:
    """All six targets over the same sources; nothing is known by construction."""
    sources = {name.split("_")[0]: instances(name)[:SIZE] for name in SOURCES}
    targets, unseen = {}, {}
    for category, name in TARGETS.items():
        # A target has half of what there is where that is little, so that some of it stays unseen.
        rows = instances(name)
        given = min(GIVEN, len(rows) // 2)
        targets[category], unseen[category] = rows[:given], rows[given : given + UNSEEN]
    return Suite(sources, targets, without(unseen, [*sources.values(), *targets.values()]), {})


def without(unseen: dict[str, Pairs], others: Sequence[Pairs]) -> dict[str, Pairs]:
    """Return the unseen examples whose inputs, the line after the definition, stand nowhere else."""
    taken = {prompt.rpartition("\n")[2] for pairs in others for prompt, _ in pairs}
    return {
        name: [pair for pair in pairs if pair[0].rpartition("\n")[2] not in taken] for name, pairs in unseen.items()
    }


def instances(name: str) -> Pairs:
    """Return a task's instances with different prompts, in a seeded order, shortened as for the other studies."""
    (file,) = (data() / "natural-instructions").glob(f"*/{name}.json.gz")
    with gzip.open(file, "rt", encoding="utf-8") as stream:
        content = json.load(stream)
    definition = cut(content["Definition"][0], DEFINITION)
    found = {
        f"{definition}\n{cut(instance['input'], INPUT)}": cut(instance["output"][0], OUTPUT)
        for instance in content["Instances"]
        if instance["input"].strip()
    }
    rows = list(found.items())
    random.Random(name).shuffle(rows)
    return rows
