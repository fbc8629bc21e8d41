"""The folder store answers as the model does, whatever is called in whatever order."""

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings

from acme_storage import Storage
from acme_storage.file import Files
from tests.acme_storage.contract import ManualClock
from tests.acme_storage.state_machine import StorageMachine


class FilesMachine(StorageMachine):
    """The machine on a new folder each time."""

    def open(self, clock: ManualClock) -> Storage:
        self.folder = Path(tempfile.mkdtemp(prefix="acme-machine-"))
        return Files(self.folder / "store", clock)

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)


# No deadline: a disk may take its time. Too few examples to find all, enough to find again what was once wrong.
FilesMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=40)
TestFiles = FilesMachine.TestCase
