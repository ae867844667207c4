c = get_config()  # noqa: D100, F821
c.InlineBackend.figure_formats = {"svg"}
c.InlineBackend.print_figure_kwargs = {
    "bbox_inches": "tight",
    "metadata": {"Date": None},
}
c.HistoryManager.enabled = False
c.InteractiveShell.colors = "nocolor"
