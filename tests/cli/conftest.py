import pytest

from tests.cli.command import RECIPE


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """One cache for all of these tests: what is asked is how commands end, not how data is read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APPORTION_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def recipe(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE)
    return file
