"""The terminal's face without hardware: its display as a picture, its lights and beeps by name."""

from taprail_hwsim.panel.display import Ssd1306Panel
from taprail_hwsim.panel.lights import GpioPanel, panel_factory

__all__ = ["GpioPanel", "Ssd1306Panel", "panel_factory"]
