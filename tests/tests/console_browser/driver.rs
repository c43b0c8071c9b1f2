//! Chromium without a window, behind its WebDriver.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use pulse_tests::{eventually, free_port};
use serde_json::json;
use thirtyfour::error::WebDriverError;
use thirtyfour::prelude::*;
use thirtyfour::session::http::{Body, HttpClient};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// The HTTP client of the harness, for the crate `thirtyfour`.
#[derive(Debug)]
struct Http(Client<HttpConnector, Full<Bytes>>);

impl Http {
    fn open() -> Self {
        Self(Client::builder(TokioExecutor::new()).build_http())
    }
}

#[async_trait]
impl HttpClient for Http {
    async fn send(&self, request: Request<Body<'_>>) -> WebDriverResult<Response<Bytes>> {
        let failed = |error: &dyn std::error::Error| WebDriverError::RequestFailed(error.to_string());
        let (mut parts, body) = request.into_parts();
        let bytes = match body {
            Body::Empty => Bytes::new(),
            Body::Json(json) => {
                parts.headers.insert("content-type", http::HeaderValue::from_static("application/json"));
                Bytes::from(json.to_string())
            }
        };
        let answer =
            self.0.request(Request::from_parts(parts, Full::new(bytes))).await.map_err(|error| failed(&error))?;
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.map_err(|error| failed(&error))?.to_bytes();
        Ok(Response::from_parts(parts, body))
    }

    async fn new(&self) -> Arc<dyn HttpClient> {
        Arc::new(Self::open())
    }
}

/// A browser with a new profile.
pub(crate) struct Browser {
    pub(crate) page: WebDriver,
    /// Ends with the browser.
    _driver: Child,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts Chromium, with or without script in pages.
    pub(crate) async fn start(with_script: bool) -> anyhow::Result<Self> {
        let (port, profile) = (free_port()?, tempfile::tempdir()?);
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start chromedriver: run scripts/setup browser")?;
        let listens = async || Ok(TcpStream::connect(("127.0.0.1", port)).await.is_ok());
        eventually("chromedriver listens", Duration::from_secs(30), listens).await?;
        let folder = format!("--user-data-dir={}", profile.path().display());
        let mut wanted = DesiredCapabilities::chrome();
        // Root has no sandbox, and containers have little shared memory.
        for argument in [
            "--headless=new",
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--disable-gpu",
            "--window-size=1280,900",
            &folder,
        ] {
            wanted.add_arg(argument)?;
        }
        let script = if with_script { 1 } else { 2 };
        wanted.add_experimental_option(
            "prefs",
            json!({ "profile.managed_default_content_settings.javascript": script }),
        )?;
        wanted.set("goog:loggingPrefs", json!({ "browser": "ALL", "performance": "ALL" }))?;
        let page =
            WebDriver::builder(format!("http://127.0.0.1:{port}"), wanted).client(Http::open()).connect().await?;
        Ok(Self { page, _driver: driver, _profile: profile })
    }

    /// Ends the browser. A test that fails ends it by the driver's end.
    pub(crate) async fn quit(self) -> anyhow::Result<()> {
        Ok(self.page.quit().await?)
    }

    /// Width and height of the page, in CSS pixels.
    pub(crate) async fn resize(&self, width: u32, height: u32) -> anyhow::Result<()> {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.page.cdp().send_raw("Emulation.setDeviceMetricsOverride", size).await?;
        Ok(())
    }

    pub(crate) async fn find(&self, css: &str) -> anyhow::Result<WebElement> {
        self.page.find(By::Css(css)).await.with_context(|| format!("no {css}"))
    }

    /// Text of an element.
    pub(crate) async fn text(&self, css: &str) -> anyhow::Result<String> {
        Ok(self.find(css).await?.text().await?)
    }

    /// Clicks the link or button with this text in the main part of the page.
    pub(crate) async fn press(&self, text: &str) -> anyhow::Result<()> {
        let path = format!("//main//*[(self::a or self::button) and normalize-space(.)='{text}']");
        self.page.find(By::XPath(path)).await.with_context(|| format!("nothing to press: {text}"))?.click().await?;
        Ok(())
    }

    /// Waits until the main part of the page has this text, without a reload.
    pub(crate) async fn shows(&self, text: &str) -> anyhow::Result<()> {
        let seen = async || {
            let shown = self.text("main").await?;
            anyhow::ensure!(shown.contains(text), "the page shows: {shown}");
            Ok(true)
        };
        eventually(text, Duration::from_secs(20), seen).await
    }
}
