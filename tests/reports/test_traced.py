"""Numbers that know their runs: plain to read, links on the page, never markup of someone else's."""

from apportion.reports.traced import linked, plain, traced

PLACES = {"adapt": "runs-2", "<b>": "runs-3"}


def test_a_sentence_reads_as_if_nothing_were_traced():
    assert plain(f"adapt took {traced('58 %', 'adapt', 'uniform')} of it ({traced('3 seeds', 'adapt')}).") == (
        "adapt took 58 % of it (3 seeds)."
    )
    assert traced("", "adapt") == "" and plain("no number") == "no number"


def test_a_number_leads_to_the_first_arm_that_is_on_the_page():
    assert linked(f"at {traced('2.1', 'gone', 'adapt')}.", PLACES) == (
        'at <a class="n" href="#runs-2" title="the runs of adapt">2.1</a>.'
    )
    assert linked(f"at {traced('2.1', 'gone')}.", PLACES) == "at 2.1."


def test_names_and_numbers_are_escaped():
    page = linked(f"<script> {traced('<1 %', '<b>')}", PLACES)
    assert page == '&lt;script&gt; <a class="n" href="#runs-3" title="the runs of &lt;b&gt;">&lt;1 %</a>'


def test_stray_annotation_characters_harm_nothing():
    assert plain("a\ufff9b\ufffbc") == "a\ufff9b\ufffbc"
    assert linked("a\ufff9b\ufffbc", PLACES) == "a\ufff9b\ufffbc"
