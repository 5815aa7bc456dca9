"""What a user would write instead: some ten lines of scikit-learn or torch for each kind of data.

Each takes what to learn from and what to be tested on, and returns what the test answers: classes,
or values. Options are the usual ones; none was chosen by a test.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn


def words(texts: Sequence[str], labels: np.ndarray, asked: Sequence[str]) -> np.ndarray:
    """TF-IDF of words and pairs of them, and logistic regression."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    model = make_pipeline(vectors, LogisticRegression(C=10.0, max_iter=1000))
    return model.fit(texts, labels).predict(asked)


def numbers(rows: np.ndarray, labels: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Standardised numbers and logistic regression."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return model.fit(rows, labels).predict(asked)


def kernel(rows: np.ndarray, labels: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Standardised numbers and a support vector machine with a Gaussian kernel."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    return make_pipeline(StandardScaler(), SVC(C=10.0)).fit(rows, labels).predict(asked)


def line(rows: np.ndarray, values: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Standardised numbers and ridge regression."""
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-3, 3, 13)))
    return model.fit(rows, values).predict(asked)


def sounds(files: Sequence[Path], labels: np.ndarray, asked: Sequence[Path]) -> np.ndarray:
    """Mean and deviation of mel cepstra, and the kernel machine."""
    import soundfile
    import torchaudio

    cepstra = torchaudio.transforms.MFCC(
        8000, n_mfcc=20, melkwargs={"n_fft": 256, "hop_length": 80, "n_mels": 40}
    )

    def features(file: Path) -> np.ndarray:
        wave = torch.from_numpy(soundfile.read(file, dtype="float32")[0])
        found = cepstra(wave)
        parts = [part for third in found.chunk(3, 1) for part in (third.mean(1), third.std(1))]
        return torch.cat(parts).nan_to_num().numpy()

    read = [np.stack([features(file) for file in group]) for group in (files, asked)]
    return kernel(read[0], labels, read[1])


def pictures(
    files: Sequence[Path], labels: np.ndarray, asked: Sequence[Path], epochs: int = 40
) -> np.ndarray:
    """Four convolutions with batch norm, trained with flips and shifts."""
    torch.manual_seed(0)
    layers, width = [], 3
    for channels in (32, 64, 128, 128):
        layers += [nn.Conv2d(width, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()]
        layers += [nn.MaxPool2d(2)]
        width = channels
    model = nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(int(labels.max()) + 1))

    def read(paths: Sequence[Path]) -> torch.Tensor:
        found = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
        return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).float() / 127.5 - 1

    inputs, targets, tested = read(files), torch.from_numpy(labels), read(asked)
    model(inputs[:2])
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    steps = epochs * -(-len(inputs) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in range(epochs):
        for some in torch.randperm(len(inputs)).split(64):
            seen = nn.functional.pad(inputs[some], (4, 4, 4, 4), mode="reflect")
            top, left = torch.randint(9, (2,)).tolist()
            seen = seen[:, :, top : top + 32, left : left + 32]
            mirrored = torch.rand(len(some)) < 0.5
            seen = torch.where(mirrored[:, None, None, None], seen.flip(3), seen)
            loss = nn.functional.cross_entropy(model(seen), targets[some])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        return model.eval()(tested).argmax(1).numpy()
