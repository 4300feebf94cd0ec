/* forecast_record: what a finished run remembers of its forecasts, for pictures: forecasts.json in the run directory.
 *
 *   {"step": 792, "part": "val", "context": 96, "horizon": 96, "interval": "1 hour" (absent without dates),
 *    "score": what `aspis eval --json` prints of this part,
 *    "columns": ["OT"], "quantiles": [0.1, 0.5, 0.9] (absent without),
 *    "windows": [{"window": 720, "row": 9264, "dates": ["2017-10-20 00:00:00", ...] (absent without),
 *                 "values": [{"column": "OT", "truth": [...], "last": 9.1, "forecast": [...], "quantiles": [[...], ...]}]}]}
 *
 * Values are in the data's units. `truth` and `dates` are the tail of the look-back and then the rows forecast, null where
 * the data has no value; the rest is the horizon's alone. `last` is the last row as the naive forecast takes it. */
#pragma once

#include "data/data.h"
#include "models/aspis.h"
#include "train/format.h"

enum { RECORD_WINDOWS = 4, RECORD_COLUMNS = 3 };
#define FORECAST_RECORD "forecasts.json"

/* The windows shown of a part of n: those at the quarters of its rows, so that runs of other context, and mostly of other
 * horizon, show the same ones. window[RECORD_WINDOWS], rising; returns their number. */
int forecast_record_windows(int64_t n_windows, int horizon, int64_t window[]);
/* The output columns shown: first, last and the one between. column[RECORD_COLUMNS], rising; returns their number. */
int forecast_record_columns(int n_output, int column[]);

/* Scores and forecasts the validation part; what evaluate_part needs suffices. CODE_DATA when it cannot be written. */
Status forecast_record_write(Model *model, Device *device, Dtype act, Dataset *dataset, int64_t n_seq, int64_t step,
                             const char *directory);
