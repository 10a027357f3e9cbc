"""From columns to numbers: scikit-learn's transformers, fitted on training rows alone."""

from collections.abc import Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from threadpoolctl import threadpool_limits

from labelsmooth.study.data.columns import Column, as_numbers, is_unspaced

TOPICS = 256  # numbers that a text becomes
CATEGORIES = 50  # numbers that a column of categories becomes, at most
RARE = 200  # a category in less than one of so many rows is taken together with others


def encoded(
    frame: pl.DataFrame, columns: Mapping[str, Column], train: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Every row as numbers, ``(N, D)``: of a plain frame, whose columns are taken so.

    Numbers are imputed by the median, with a column that says so, and standardised. Categories are one-hot,
    rare and unknown ones together. Texts are TF-IDF of words and pairs of words, in 256 dimensions.
    """
    names = {
        kind: [name for name in columns if columns[name].kind == kind] for kind in ("number", "category")
    }
    frame = frame.with_columns(
        *(as_numbers(frame[name]) for name in names["number"]),
        pl.col(names["category"]).fill_null("(missing)"),
    )
    texts = [name for name in columns if columns[name].kind == "text"]
    frame = frame.with_columns(pl.col(texts).fill_null(""))
    fitted = frame[train]
    steps = [
        ("numbers", _numbers(), names["number"]),
        ("categories", _categories(len(fitted)), names["category"]),
        *((f"text of {name}", _text(fitted[name]), name) for name in texts),
    ]
    encoder = ColumnTransformer([step for step in steps if len(step[2])], sparse_threshold=0)
    # The same numbers on any number of threads: it is by them that a study recognises its data.
    with threadpool_limits(1):
        encoder.fit(fitted)
        return np.asarray(encoder.transform(frame), dtype=np.float32)


def _numbers() -> Pipeline:
    return make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())


def _categories(rows: int) -> OneHotEncoder:
    return OneHotEncoder(
        handle_unknown="infrequent_if_exist",
        min_frequency=max(2, rows // RARE),
        max_categories=CATEGORIES,
        sparse_output=False,
    )


def _text(texts: pl.Series) -> Pipeline:
    words = _words(is_unspaced(texts))
    width = len(words.fit(texts).vocabulary_)
    shorter = TruncatedSVD(TOPICS, random_state=0) if width > TOPICS else FunctionTransformer(_dense)
    return make_pipeline(words, shorter, StandardScaler())


def _words(unspaced: bool) -> TfidfVectorizer:
    return TfidfVectorizer(
        analyzer="char" if unspaced else "word",
        token_pattern=r"(?u)\b\w+\b",
        ngram_range=(1, 2),
        sublinear_tf=True,
        strip_accents="unicode",
        dtype=np.float32,  # pyright: ignore[reportArgumentType]
    )


def _dense(matrix: object) -> object:
    return matrix.toarray()  # pyright: ignore[reportAttributeAccessIssue]
