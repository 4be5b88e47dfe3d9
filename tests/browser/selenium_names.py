"""What the tests take from selenium. Without it they can be collected, and each says what to install when it runs."""

try:
    from selenium import webdriver
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.wait import WebDriverWait
except ImportError:
    webdriver = ActionChains = By = Keys = WebDriverWait = None

__all__ = ["ActionChains", "By", "Keys", "WebDriverWait", "webdriver"]
