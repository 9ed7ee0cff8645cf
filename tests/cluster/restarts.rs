//! The operator can die between any two steps, another one can take over, and the image is the same.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::FutureExt;
use k8s_openapi::api::batch::v1::Job;
use minimalimage::api::v1alpha1::Status;
use serde_json::{Value, json};
use tokio::sync::mpsc::unbounded_channel;

use crate::{
    between::{self, Hook, Moment, Write},
    fixture::{GATE, World, builder},
    operator::{Recipe, leads},
};

/// Two stages one after the other, each of which runs until it is let go on.
fn chain(repository: &str) -> Value {
    json!({
        "stages": [
            {"name": "first", "image": builder("c"), "run": format!("{GATE}; echo first > out")},
            {"name": "second", "image": builder("c"), "run": format!("{GATE}; cat in > out; echo second >> out"),
             "copy": [{"from": "first", "source": "/workspace/out", "destination": "/workspace/in"}]}],
        "image": {"copy": [{"from": "second", "source": "/workspace/out", "destination": "/out"}]},
        "destination": {"repository": repository}
    })
}

/// Lets each stage go on once status says that it runs; gives the status of the image.
async fn let_through(world: &World) -> Status {
    for stage in ["first", "second"] {
        world.open_gate_when_running("app", stage).await;
    }
    world.ready("app").await
}

/// What a write does, without what differs from run to run. Status is told apart by reason and states of stages.
fn step(write: &Write) -> String {
    let path = write.path.split('?').next().unwrap_or_default();
    let place = match path.split_once("/uploads/") {
        Some((before, _)) => format!("{before}/uploads/"),
        None => path.to_owned(),
    };
    let mounted = if write.path.contains("mount=") { " mount" } else { "" };
    let body: Value = serde_json::from_slice(&write.body).unwrap_or_default();
    let states = body["status"]["stages"].as_array().into_iter().flatten();
    let states: Vec<_> = states.filter_map(|stage| stage["state"].as_str()).collect();
    let conditions = body["status"]["conditions"].as_array().into_iter().flatten();
    let ready: Vec<_> = conditions.filter(|c| c["type"] == "Ready").filter_map(|c| c["reason"].as_str()).collect();
    let event = body["reason"].as_str().unwrap_or_default();
    format!("{} {place}{mounted} {event}{} {}", write.method, ready.concat(), states.join(" ")).trim_end().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_every_kind_of_write_the_operator_builds_the_same_image_with_one_pod_for_each_stage() {
    let undisturbed = World::new("undisturbed").await;
    undisturbed.apply("app", chain(&undisturbed.repository("app"))).await;

    let world = World::with_own_operator("killed").await;
    let running = Arc::new(Mutex::new(None));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (died, mut deaths) = unbounded_channel();
    let hook: Hook = {
        let (running, seen) = (Arc::clone(&running), Arc::clone(&seen));
        Arc::new(move |write, moment| {
            let step = step(&write);
            let mut seen = seen.lock().unwrap();
            if moment == Moment::After && !seen.contains(&step) {
                seen.push(step);
                let operator: Option<crate::operator::Operator> = running.lock().unwrap().take();
                if let Some(operator) = operator {
                    operator.kill();
                    died.send(()).unwrap();
                }
            }
            std::future::ready(()).boxed()
        })
    };
    let registry = between::registry(Arc::clone(&hook)).await;
    let api_server = between::api_server(world.client.clone(), hook).await;
    let recipe = Recipe::new(&world).await.registry(&registry).api_server(api_server);
    *running.lock().unwrap() = Some(recipe.start());
    world.apply("app", chain(&format!("{registry}/{}/app", world.namespace))).await;

    let ended = async {
        let status = let_through(&world).await;
        // The last steps come after Ready: the Jobs go, the Event is written.
        world.none_left::<Job>().await;
        status
    };
    futures::pin_mut!(ended);
    let mut kills = 0;
    let status: Status = loop {
        tokio::select! {
            Some(()) = deaths.recv() => {
                kills += 1;
                *running.lock().unwrap() = Some(recipe.start());
            }
            status = &mut ended => break status,
        }
    };
    let seen = seen.lock().unwrap().clone();
    println!("{kills} kills:\n{}", seen.join("\n"));
    for step in [
        "/jobs",
        "/status Building Running Pending",
        "/status Building Built Running",
        "-cache/manifests/",
        "/app/blobs/uploads/ mount",
        "/app/manifests/latest",
        "/status Succeeded",
    ] {
        assert!(seen.iter().any(|seen| seen.contains(step)), "no kill after {step}");
    }
    assert!(kills >= 12, "{kills}");
    assert_eq!(status.image.unwrap().digest, let_through(&undisturbed).await.image.unwrap().digest);
    // One for each stage.
    world.had_pods(2).await;
    assert_eq!(status.history.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_replica_takes_over_when_the_leader_is_killed_and_at_once_when_it_is_told_to_stop() {
    let world = World::with_own_operator("leader").await;
    let recipe = Recipe::new(&world).await.flags(&["--leader-elect"]);
    let first = recipe.start();
    leads(&world, &first).await;
    let second = recipe.start();
    world.apply("app", chain(&world.repository("app"))).await;
    world.running("app").await;

    first.kill();
    let killed = Instant::now();
    leads(&world, &second).await;
    println!("taken over after {:.1} s", killed.elapsed().as_secs_f64());
    assert!(killed.elapsed() < Duration::from_secs(30), "twice the Lease's duration: {:?}", killed.elapsed());
    // A candidate long before its turn comes, for the build goes on meanwhile.
    let third = recipe.start();
    let_through(&world).await;
    world.had_pods(2).await;

    let told = Instant::now();
    let status = second.terminate().await;
    assert!(status.success(), "{status}");
    leads(&world, &third).await;
    println!("handed over after {:.1} s", told.elapsed().as_secs_f64());
    assert!(told.elapsed() < Duration::from_secs(8), "{:?}", told.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spec_that_changes_while_the_old_image_is_pushed_never_gets_the_old_tag() {
    let world = World::with_own_operator("late").await;
    let (reached, mut arrivals) = unbounded_channel();
    let released = Arc::new(tokio::sync::Notify::new());
    let tagged = Arc::new(Mutex::new(Vec::new()));
    let hook: Hook = {
        let (released, tagged) = (Arc::clone(&released), Arc::clone(&tagged));
        Arc::new(move |write: Write, moment| {
            let of_image = write.method == "PUT" && write.path.contains("/app/manifests/");
            if of_image && moment == Moment::After && write.path.ends_with(":latest") | write.path.ends_with("/latest")
            {
                tagged.lock().unwrap().push(write.body.clone());
            }
            if !of_image || moment == Moment::After || reached.is_closed() || reached.send(()).is_err() {
                return std::future::ready(()).boxed();
            }
            let released = Arc::clone(&released);
            async move { released.notified().await }.boxed()
        })
    };
    let registry = between::registry(hook).await;
    let recipe = Recipe::new(&world).await.registry(&registry);
    let _operator = recipe.start();
    let spec = |text: &str| {
        json!({
            "image": {"files": [{"path": "/text", "content": text}]},
            "destination": {"repository": format!("{registry}/{}/app", world.namespace)}
        })
    };
    world.apply("app", spec("old")).await;
    tokio::time::timeout(Duration::from_mins(1), arrivals.recv()).await.expect("the old manifest's push");
    world.apply("app", spec("new")).await;
    // Whatever comes now passes.
    arrivals.close();
    released.notify_one();
    let status = world.ready("app").await;
    let tagged: BTreeSet<String> = {
        let tagged = tagged.lock().unwrap();
        tagged.iter().map(|body| minimalimage::domain::value::Digest::of(body).to_string()).collect()
    };
    assert_eq!(tagged, [status.image.unwrap().digest].into(), "the only image that ever had the tag");
    assert_eq!(status.history.len(), 1, "the old build never ended");
}
