
"use strict";
(() => {
  const korean = {
    title: "SSH 로그인이 승인을 기다립니다",
    lead: "누군가 ssh를 실행하고 본인이라고 합니다. 액세스 키로 서명하면 어디에서 온 로그인인지 볼 수 있고, 허용하거나 거절할 수 있습니다. 키는 이 페이지 안에서 서명에만 쓰이며 전송되거나 저장되지 않습니다.",
    code: "코드",
    key: "액세스 키 ID",
    secret: "비밀 액세스 키",
    token: "세션 토큰 (임시 자격 증명)",
    look: "로그인 보기",
    from: "접속한 곳",
    node: "노드",
    user: "OS 사용자",
    you: "승인하면",
    warning: "방금 직접 시작한 로그인일 때만 허용하세요.",
    mfa: "MFA 코드 (기기가 있으면)",
    approve: "허용",
    deny: "내가 아님: 거절",
    any: "정하지 않음",
    approved: "허용했습니다. 터미널로 돌아가세요.",
    denied: "거절했습니다.",
    working: "확인하는 중…",
    failed: "서버에 연결할 수 없습니다",
  };
  const english = {
    any: "not named",
    approved: "Let in. Go back to your terminal.",
    denied: "Sent away.",
    working: "Asking…",
    failed: "the server cannot be reached",
  };
  const inKorean = navigator.language.toLowerCase().startsWith("ko");
  const say = (name) => (inKorean ? korean : english)[name];
  if (inKorean) {
    document.documentElement.lang = "ko";
    for (const element of document.querySelectorAll("[data-text]")) {
      element.textContent = korean[element.dataset.text];
    }
  }

  const field = (name) => document.getElementById(name);
  const bytes = (text) => new TextEncoder().encode(text);
  const hex = (buffer) => [...new Uint8Array(buffer)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const sha256 = async (text) => hex(await crypto.subtle.digest("SHA-256", bytes(text)));
  const hmac = async (key, text) => {
    const imported = await crypto.subtle.importKey("raw", key, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
    return new Uint8Array(await crypto.subtle.sign("HMAC", imported, bytes(text)));
  };

  // Signature Version 4 of one call: JSON to `/` with its operation in a header.
  const call = async (operation, input) => {
    const body = JSON.stringify(input);
    const region = document.body.dataset.region;
    const instant = new Date().toISOString().replace(/[-:]|\.\d{3}/g, "");
    const day = instant.slice(0, 8);
    const headers = {
      "content-type": "application/x-amz-json-1.1",
      host: location.host,
      "x-amz-date": instant,
      "x-amz-target": `Munjigi.${operation}`,
    };
    const token = field("token").value.trim();
    if (token) headers["x-amz-security-token"] = token;
    const names = Object.keys(headers).sort();
    const canonical = names.map((name) => `${name}:${headers[name]}\n`).join("");
    const request = ["POST", "/", "", canonical, names.join(";"), await sha256(body)].join("\n");
    const scope = `${day}/${region}/munjigi/aws4_request`;
    const toSign = ["AWS4-HMAC-SHA256", instant, scope, await sha256(request)].join("\n");
    let key = bytes(`AWS4${field("secret").value.trim()}`);
    for (const part of [day, region, "munjigi", "aws4_request"]) key = await hmac(key, part);
    const signature = hex(await hmac(key, toSign));
    const credential = `${field("key").value.trim()}/${scope}`;
    headers.authorization =
      `AWS4-HMAC-SHA256 Credential=${credential}, SignedHeaders=${names.join(";")}, Signature=${signature}`;
    // The browser sets it, to the same.
    delete headers.host;
    const answer = await fetch("/", { method: "POST", headers, body, credentials: "omit", cache: "no-store" });
    const said = await answer.json();
    if (!answer.ok) throw new Error(said.message || said.Message || said.__type || String(answer.status));
    return said;
  };

  const buttons = ["look", "approve", "deny"].map(field);
  const attempt = async (work) => {
    for (const button of buttons) button.disabled = true;
    field("status").textContent = say("working");
    try {
      field("status").textContent = (await work()) || "";
    } catch (error) {
      field("status").textContent = error instanceof TypeError ? say("failed") : error.message;
    } finally {
      for (const button of buttons) button.disabled = false;
    }
  };
  const decide = (decision, word) => attempt(async () => {
    const input = { Code: field("code").value, Decision: decision };
    if (decision === "Approve" && field("mfa").value) input.TokenCode = field("mfa").value;
    await call("ApproveSshLogin", input);
    field("login").hidden = true;
    field("form").hidden = true;
    for (const name of ["secret", "token", "mfa"]) field(name).value = "";
    return say(word);
  });

  field("code").value = decodeURIComponent(location.pathname.split("/").pop() || "");
  field("form").addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(async () => {
      field("login").hidden = true;
      const found = await call("DescribeSshLogin", { Code: field("code").value });
      field("from").textContent = found.Login.SourceAddress;
      field("node").textContent = found.Login.Node || say("any");
      field("user").textContent = found.Login.OsUser || say("any");
      field("you").textContent = found.Principal;
      field("login").hidden = false;
    });
  });
  field("approve").addEventListener("click", () => decide("Approve", "approved"));
  field("deny").addEventListener("click", () => decide("Deny", "denied"));
})();
