"""The forge, and the runs that nothing happened to."""

import pytest

from runs import Forge, Unbroken


@pytest.fixture(scope="session")
def forge():
    made = Forge()
    yield made
    made.close()


@pytest.fixture(scope="session")
def unbroken(forge, tiny_blossoms_folder, tmp_path_factory):
    return Unbroken(forge, "gan", tiny_blossoms_folder, tmp_path_factory.mktemp("unbroken"))


@pytest.fixture(scope="session")
def unbroken_style(forge, unbroken, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken-style")
    return Unbroken(forge, "style", unbroken.data, folder, start=unbroken.folder)
