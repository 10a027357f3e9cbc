def write_report(results, outcomes):
    (results.folder / "report.html").write_text("x")
