"""How to write it instead: one sentence for every way in which people read several rows at once."""

from __future__ import annotations

_FITTED = "a value of all rows is a fitted value: compute it in training and hand it in as an argument"
_SUM = "write the sum of columns out: a + b + c"
_ROW = "rowmap(function, column, out=float) with a function of one row's values"
_EXTREME = "np.maximum(a, b), np.minimum(a, b) between columns; " + _FITTED
_WINDOW = "other rows' values come from a feature view with a window, not from the batch"
_ORDER = "a row's rank among others is a fitted table: np.searchsorted(TABLE, column)"
_BOTH = "np.where(condition, a, b); (0 < x) & (x < 1), a | b, ~a; np.minimum and np.maximum for min() and max()"
_NUMBER = (
    "np.log, np.sqrt, np.floor, ... for math.*; column.astype(float) or .astype(int) for float() and int(); " + _ROW
)
_MISSING = "nothing: rows in which an input has no value never reach a transform"

_WHOLE = "hands the column to something that reads it as a whole array (np.array, np.vectorize, pandas, a library)"
_ELEMENTS = (
    "elementwise numpy functions on the column itself; "
    + _SUM
    + "; a lookup is rowmap(TABLE.__getitem__, column, out=float)"
)

SPECIAL = {  # special methods, without the underscores
    "bool": ("asks for the truth of a whole column", _BOTH),
    "len": ("asks how many rows the batch has", "nothing may depend on it: " + _FITTED),
    "iter": ("goes through the rows", _ROW),
    "reversed": ("goes through the rows backwards", _ROW),
    "contains": ("searches the whole column", "(column == value), or np.isin(column, TABLE)"),
    "getitem": ("picks rows out of the column", "np.where(condition, a, b); " + _WINDOW),
    "setitem": ("changes rows in place", "np.where(condition, value, column)"),
    "delitem": ("removes rows", "np.where(condition, a, b)"),
    "float": ("turns a column into one number", _NUMBER),
    "int": ("turns a column into one number", _NUMBER),
    "complex": ("turns a column into one number", _NUMBER),
    "index": ("uses a column as one index", "rowmap(TABLE.__getitem__, column, out=float)"),
    "round": ("rounds a column as if it were one number", "np.round(column, digits)"),
    "trunc": ("cuts a column as if it were one number", "np.trunc(column)"),
    "floor": ("rounds a column as if it were one number", "np.floor(column)"),
    "ceil": ("rounds a column as if it were one number", "np.ceil(column)"),
    "hash": ("looks a column up in a set or dict", "rowmap(TABLE.get, column, out=...) or np.isin(column, TABLE)"),
    "str": ("turns the whole column into text", "rowmap(str, column, out=str)"),
    "repr": ("turns the whole column into text", "rowmap(str, column, out=str)"),
    "format": ("turns the whole column into text", "rowmap(function, column, out=str) with the f-string inside"),
    "bytes": ("turns the whole column into bytes", _ROW),
    "array": (_WHOLE, _ELEMENTS),
    "reduce_ex": ("copies or pickles a whole column", "use the column itself"),
    "sizeof": ("asks how large the batch is", _FITTED),
    "dir": ("looks into a column", "elementwise numpy functions"),
    "enter": ("uses a column as a context", "elementwise numpy functions"),
    "call": ("calls a column", "elementwise numpy functions"),
}  # fmt: skip

UFUNC = {
    "matmul": "write the product out: x * 0.3 + y * 0.7",
    "reduce": _SUM + "; " + _FITTED,
    "accumulate": _WINDOW,
    "reduceat": _WINDOW,
    "outer": "np.where or a + b on columns",
    "at": "np.where(condition, value, column)",
}

_MANY = {
    _FITTED: "mean nanmean average median nanmedian std nanstd var nanvar quantile percentile nanquantile "
    "nanpercentile ptp histogram bincount corrcoef cov mode value_counts nunique size shape ndim T "
    "count_nonzero any all",
    _EXTREME: "max min amax amin nanmax nanmin argmax argmin nanargmax nanargmin idxmax idxmin",
    _SUM + "; " + _FITTED: "sum nansum prod nanprod dot inner outer einsum tensordot stack vstack hstack column_stack "
    "concatenate array asarray linalg norm trapezoid",
    _WINDOW: "cumsum cumprod diff ediff1d gradient roll shift rolling ewm expanding convolve correlate unwrap flip "
    "fliplr pad repeat tile ffill bfill cummax cummin delete insert append resize groupby",
    _ORDER: "sort argsort lexsort partition argpartition rank unique searchsorted cut qcut",
    _MISSING: "fillna isna isnull notna notnull dropna ffill",
    _ROW: "apply map str dt tolist item vectorize apply_along_axis piecewise choose frompyfunc nonzero flat values "
    "to_numpy upper lower strip split replace startswith endswith hour weekday year month day encode",
    "np.full_like(column, value), np.zeros_like(column)": "empty_like empty fill",
    "np.where(condition, a, b)": "extract compress place putmask copyto put mask argwhere flatnonzero",
}
FUNCTION = {name: advice for advice, names in _MANY.items() for name in names.split()}
ATTRIBUTE = FUNCTION | {"isin": "np.isin(column, TABLE)", "abs": "np.abs(column)", "where": "np.where(condition, a, b)"}
