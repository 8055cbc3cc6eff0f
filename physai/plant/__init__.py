"""Plants: a machine's model, channels, design variables and closed-form checks."""

from physai.plant.load import (
    joint_layout,
    load_module,
    load_plant,
    plant_names,
    plants_folder,
)
from physai.plant.record import Channel, Check, DesignVariable, Disturbance, Plant, Sensor
from physai.plant.sensors import gather, left_out
from physai.plant.supported import check_driven
from physai.plant.variables import check_variables

__all__ = [
    "Channel",
    "Check",
    "DesignVariable",
    "Disturbance",
    "Plant",
    "Sensor",
    "check_driven",
    "check_variables",
    "gather",
    "joint_layout",
    "left_out",
    "load_module",
    "load_plant",
    "plant_names",
    "plants_folder",
]
