"""The image files of a folder as rows of a task."""

from collections.abc import Sequence
from pathlib import Path

from ofa.errors import UserError
from ofa.io.image_files import readable
from ofa.io.image_paths import list_images
from ofa.io.images import encode_image, read_image_file, upright_file
from ofa.task.task_spec import TaskSpec


class ImageFolder:
    """The image files of a folder as rows, upright: the file's name is the id, the other columns
    are empty.

    Attributes: broken: path -> why it cannot be read, of the files that are skipped.
    Raises: UserError if there is no image or the task needs more than an image.
    """

    def __init__(self, folder: str, spec: TaskSpec):
        if not Path(folder).is_dir():
            raise UserError(
                f"{folder}: expected a folder of image files, found none; check --images"
            )
        if spec.needed_names or not (spec.has("id") and spec.has("image")):
            raise UserError(
                f"{folder}: task '{spec.name}' asks about more than an image"
                f" ({', '.join(spec.needed_names) or 'other columns'}); give it a TSV file with the"
                f" columns {', '.join(spec.column_names)}"
            )
        self.path, self.columns, self.image = str(folder), spec.column_names, spec.images[0].name
        self.selected_cols = list(range(len(self.columns)))
        self.files, self.broken = readable(list_images(folder))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> list[str]:
        path = self.files[index]
        values = {
            "id": path.name,
            self.image: encode_image(upright_file(read_image_file(path), str(path), lossless=True)),
        }
        return [values.get(column, "") for column in self.columns]

    def texts(self, index: int, columns: Sequence[int]) -> list[str]:
        """As ``ofa.data.tsv.TsvFile.texts``."""
        return [
            self.files[index].name if self.columns[column] == "id" else "" for column in columns
        ]

    def where(self, index: int) -> str:
        return str(self.files[index])
