//! From an activation to a running agent and out again.

use munjigi_agent::{JoinOptions, join, leave, status};
use munjigi_core::secret::Secret;

use crate::agent::Agent;
use crate::server::Server;

pub(crate) async fn joining_running_and_leaving() {
    let mut server = Server::start().await;
    let directory = tempfile::tempdir().unwrap();
    let ca_file = directory.path().join("ca.pem");
    std::fs::write(&ca_file, &server.ca).unwrap();
    let data_dir = directory.path().join("data");
    let mut options = JoinOptions {
        data_dir: data_dir.clone(),
        server: server.url(),
        ca_file,
        name: Some("웹-1".into()),
        tags: vec![("Team".into(), "sre".into())],
        activation_id: "the-id".into(),
        activation_code: Secret::new("wrong".into()),
        replace: false,
        manage_accounts: false,
    };
    let error = join(&options).await.unwrap_err().to_string();
    assert!(error.contains("the activation is used up") && !error.contains("wrong"), "{error}");
    assert!(status(&data_dir).unwrap_err().to_string().contains("munjigi agent join"));
    options.activation_code = Secret::new("the-code".into());
    let joined = join(&options).await.unwrap();
    assert_eq!(joined.name, "웹-1");
    assert_eq!((joined.ca_fingerprints.len(), joined.ca_fingerprints[0].len()), (1, 64));
    {
        let nodes = server.nodes.lock().unwrap();
        let (operation, input) = nodes.calls.last().unwrap();
        assert_eq!(operation, "Munjigi.RegisterNode");
        assert_eq!(input["Tags"][0]["Key"], "Team");
        assert_eq!(input["PlatformType"], "Linux");
    }
    // Only one enrolment, unless root says so.
    assert!(join(&options).await.unwrap_err().to_string().contains("--replace"));
    options.replace = true;
    let again = join(&options).await.unwrap();
    assert_ne!(again.node_id, joined.node_id);
    let kept = std::fs::read_dir(&data_dir).unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap());
    assert!(kept.into_iter().any(|name| name.starts_with("agent.json.replaced-")));
    let stopped = status(&data_dir).unwrap();
    assert_eq!((stopped.node_id, stopped.process_id, stopped.online), (again.node_id.clone(), None, false));
    {
        let inside = tempfile::tempdir().unwrap();
        for name in ["agent.json", "node.key"] {
            std::fs::copy(data_dir.join(name), inside.path().join(name)).unwrap();
        }
        let (agent, link) = Agent::start_in(inside, &mut server).await;
        assert_eq!(link.hello.node_id, again.node_id.to_string());
        crate::agent::until("status says online", || status(agent.directory.path()).unwrap().online).await;
        assert!(leave(agent.directory.path(), false).await.unwrap_err().to_string().contains("still runs"));
    }
    assert_eq!(leave(&data_dir, false).await.unwrap(), again.node_id);
    assert_eq!(server.nodes.lock().unwrap().calls.last().unwrap().0, "Munjigi.LeaveNode");
    assert!(!data_dir.join("node.key").exists() && !data_dir.join("agent.json").exists());
}
