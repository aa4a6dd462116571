"""Forecast the weekly CO2 at Mauna Loa half a year ahead, then go on live."""

from pathlib import Path

import polars as pl
import statsmodels

import segue

data = Path(statsmodels.__file__).parent / "datasets" / "co2" / "co2.csv"
look = segue.look(data, horizon=26)
print(look)  # the inferred declaration and a data check
run = segue.fit(look.declaration, data)
print(run.evaluation.frame())  # beside the naive answers
run.save("runs/co2", overwrite=True)  # weights, declaration, scores, a report with pictures
print(run.predict(data).head(3))  # the 26 weeks after the record

session = segue.load("runs/co2").session()
*history, latest = pl.read_csv(data, schema_overrides={"date": pl.String}).to_dicts()
session.chunk(history)
forecast = session.step(latest)  # one week in, the next 26 out
print(forecast["date"][0], forecast["co2_q10"][0], forecast["co2"][0], forecast["co2_q90"][0])
