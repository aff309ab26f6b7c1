"""Annotating in a notebook with ipywidgets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from caliber_pipeline.core.errors import InputError
from caliber_pipeline.renderers.notebook_html import is_notebook, progress_html, record_html

if TYPE_CHECKING:
    from caliber_pipeline.renderers import views


class AnnotationWidget:
    """One record at a time; a click is a verdict at once, so closing the notebook loses nothing.

    Attributes:
        box: The ipywidgets box, to be placed where one likes.
    """

    def __init__(self, manager: views.AnnotatingView) -> None:
        """Build the widgets.

        Args:
            manager: Where verdicts go.

        Raises:
            InputError: ipywidgets is not installed.
        """
        try:
            import ipywidgets
        except ImportError as error:
            raise InputError(
                "annotating in a notebook needs ipywidgets: pip install 'caliber-pipeline[notebook]'"
            ) from error
        self._manager = manager
        self._is_shown = False
        self.record_view: Any = ipywidgets.HTML()
        self.progress_view: Any = ipywidgets.HTML()
        layout = ipywidgets.Layout(width="95%", height="4.5em")
        self.note: Any = ipywidgets.Textarea(placeholder="Why? (note, before the verdict)", layout=layout)
        self.buttons: dict[str, Any] = {
            name: ipywidgets.Button(description=name, button_style=style, tooltip=tooltip)
            for name, style, tooltip in (
                ("Accept", "success", "The output is good"),
                ("Reject", "danger", "The output is not good"),
                ("Skip", "", "Next record"),
                ("Back", "", "Record before"),
                ("Undo", "", "Take the last verdict back"),
            )
        }
        actions = {
            "Accept": lambda _: self._judge(1),
            "Reject": lambda _: self._judge(0),
            "Skip": lambda _: self._step(1),
            "Back": lambda _: self._step(-1),
            "Undo": lambda _: self._undo(),
        }
        for name, action in actions.items():
            self.buttons[name].on_click(action)
        row = ipywidgets.HBox(list(self.buttons.values()))
        self.box: Any = ipywidgets.VBox([self.progress_view, self.record_view, self.note, row])
        first = manager.get_next_unannotated()
        if first is not None:
            manager.set_current_index(manager.index_of(first.record_id))
        self._refresh()

    def __repr__(self) -> str:
        """How far one is."""
        state = self._manager.get_state()
        return f"AnnotationWidget({state.annotated}/{state.total} annotated)"

    def _ipython_display_(self) -> None:
        self.show()

    def show(self) -> AnnotationWidget:
        """Show it where there is a notebook, if it was not shown yet."""
        if not self._is_shown and is_notebook():
            from IPython.display import display

            self._is_shown = True
            display(self.box)  # type: ignore[no-untyped-call]  # IPython has no types here
        return self

    def _record(self) -> views.RecordView | None:
        return self._manager.get_current_record()

    def _judge(self, score: int) -> None:
        record = self._record()
        if record is None:
            return
        self._manager.annotate(record.record_id, score, self.note.value.strip() or None)
        following = self._manager.get_next_unannotated()
        if following is not None:
            self._manager.set_current_index(self._manager.index_of(following.record_id))
        self._refresh()

    def _step(self, by: int) -> None:
        index = self._manager.current_index + by
        if 0 <= index < self._manager.get_state().total:
            self._manager.set_current_index(index)
            self._refresh()

    def _undo(self) -> None:
        self._manager.undo()
        self._refresh()

    def _refresh(self) -> None:
        state, record = self._manager.get_state(), self._record()
        done = " All done." if state.total and state.annotated == state.total else ""
        self.progress_view.value = f"<div class='caliber'>{progress_html(state)}{done}</div>"
        given = self._manager.get_annotation(record.record_id) if record is not None else None
        self.note.value = (given.notes or "") if given is not None else ""
        if record is None:
            self.record_view.value = "There are no records."
            return
        title = f"{record.record_id} ({self._manager.current_index + 1} of {state.total})"
        self.record_view.value = record_html(record, title, given)
