"""Run files: what a YAML file may say, checked and frozen. The only place that knows pydantic."""

from pipeline.config.agglomerate import Agglomerate as Agglomerate
from pipeline.config.evaluate import Evaluate as Evaluate
from pipeline.config.fields import RoiNm as RoiNm
from pipeline.config.load import checked_settings as checked_settings
from pipeline.config.load import dump_settings as dump_settings
from pipeline.config.load import load_settings as load_settings
from pipeline.config.load import load_yaml as load_yaml
from pipeline.config.machine import Dask as Dask
from pipeline.config.machine import Machine as Machine
from pipeline.config.machine import Workers as Workers
from pipeline.config.network import Backbone as Backbone
from pipeline.config.network import Network as Network
from pipeline.config.run import Data as Data
from pipeline.config.run import Fragments as Fragments
from pipeline.config.run import Predict as Predict
from pipeline.config.run import Run as Run
from pipeline.config.run import Settings as Settings
from pipeline.config.train import Augment as Augment
from pipeline.config.train import Loss as Loss
from pipeline.config.train import Optimizer as Optimizer
from pipeline.config.train import Train as Train
from pipeline.config.train import Validation as Validation
from pipeline.config.train import View as View
from pipeline.config.tune import Tune as Tune
