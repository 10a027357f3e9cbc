"""Encoding of columns as numbers with scikit-learn's transformers, fitted on the training rows only."""

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

TOPICS = 256  # dimensions of a text
CATEGORIES = 50  # the maximum number of dimensions of a categorical column
RARE = 200  # a category with less than 1/RARE of the rows is merged with other rare ones


def encoded(
    frame: pl.DataFrame, columns: Mapping[str, Column], train: NDArray[np.int64]
) -> NDArray[np.float32]:
    """All rows of a plain frame as numbers, ``(N, D)``, according to the roles of the columns.

    Missing numbers are imputed by the median, with an indicator column, and numbers are standardised.
    Categories are one-hot encoded; rare and unknown ones are merged. Texts are TF-IDF of words and word
    pairs, reduced to 256 dimensions.
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
    # Independent of the number of threads, since a study recognises its data by these numbers.
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
